"""CLIP's byte-pair tokenizer with character offsets, on `tokenizers` and open_clip's vocabulary file, without torch.

Two normalisations, both exact:

- `transformers`: NFC, white space collapsed, lower case. What diffusers pipelines feed their encoders.
- `openai`: ftfy, HTML unescaped twice, white space collapsed, lower case. What open_clip trains and scores with.

Ids equal those of `transformers.CLIPTokenizer` and of `open_clip.get_tokenizer("ViT-L-14")`, with one exception made on
purpose: a special token that a user types (`<|endoftext|>` and its like) is ordinary text here and never becomes the
special id, which would end the prompt in its middle. `typed_special_tokens` finds such text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import accumulate, chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, get_args

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt import byte_pairs
from clipcond.prompt.alignment import Span, align, through

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from tokenizers.models import BPE

BOS, EOS, VOCABULARY = 49406, 49407, 49408
CONTEXT, CONTENT = 77, 75
Normalisation = Literal["transformers", "openai"]
TokenRow = tuple[int, str, int, int]  # id, piece, start, end
_Known = TypeVar("_Known")

_MERGES = VOCABULARY - 512 - 2  # the file holds more; CLIP uses the first 48,894
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_TYPED_SPECIAL = re.compile(r"<\|(?:start|end)oftext\|>|<(?:start|end)_of_text>", re.IGNORECASE)
# what ftfy could repair or an HTML parser unescape: not ASCII, a control character, an `&` that could open an entity
_ODD = re.compile(r"[^\t\n\x20-~]|&[#0-9A-Za-z]")
_SHORT = 1000  # characters of a text whose repair is remembered
_FEW, _LONG = 3, 5000  # so many single texts, each of so few characters, do without the whole model
_BETWEEN: Span = (0, 0)  # the space between two words, which no token covers
_SURROGATE = re.compile("[\ud800-\udfff]")
_PRINTABLE = re.compile(r"[!-~]*")
_MOST_KNOWN, _LONGEST_KNOWN = 1 << 16, 48  # pieces that are remembered, and their characters: some 10 MB


class Token(NamedTuple):
    """One content token. `text` is what the user typed, prompt[start:end]; never empty.

    A character that takes several tokens (an emoji, for instance) is the `text` of each of them.
    """

    id: int
    piece: str
    text: str
    start: int
    end: int


def tokenize(text: str, normalisation: Normalisation = "transformers") -> tuple[Token, ...]:
    """The content tokens of a text: no BOS, EOS or padding, and nothing cut off.

    Raises ConfigError for an unknown normalisation, ResourceMissing where open_clip's vocabulary file is not there.
    """
    _check(normalisation)
    rows = _openai_rows(text) if normalisation == "openai" else _transformers_rows(text)
    return tuple([Token(number, piece, text[start:end], start, end) for number, piece, start, end in rows])


def token_rows(text: str) -> list[TokenRow]:
    """`tokenize(text)` as plain tuples (id, piece, start, end), for those who make tokens of their own kind."""
    return _transformers_rows(text)


def rows_beyond(text: str, limit: int) -> list[TokenRow]:
    """`token_rows(text)[limit:]`, with little work where nothing is beyond the limit."""
    if text.isascii():
        pieces = text.lower().split(" ")
        try:
            found = [*map(_known_rows.__getitem__, pieces)]
        except KeyError:
            pass
        else:
            return _beyond(pieces, [*accumulate(map(len, found))], limit)
    return token_rows(text)[limit:]


def _beyond(pieces: Sequence[str], counts: Sequence[int], limit: int) -> list[TokenRow]:
    """Return the rows of known pieces beyond a limit; `counts` are the tokens up to the end of each piece."""
    if counts[-1] <= limit:
        return []
    first = bisect_right(counts, limit)
    before = counts[first - 1] if first else 0
    at = sum(map(len, pieces[:first])) + first
    return _placed_rows(pieces[first:], at, _known_rows)[limit - before :]


def token_ids(text: str, normalisation: Normalisation = "transformers") -> list[int]:
    """The ids of `tokenize(text, normalisation)`, without the work for offsets."""
    return batch_ids([text], normalisation)[0]


def batch_ids(texts: Sequence[str], normalisation: Normalisation = "transformers") -> list[list[int]]:
    """`token_ids` of many texts. What stands between two spaces is looked up where it was seen before."""
    _check(normalisation)
    known = _known_ids[normalisation].__getitem__
    ids: list[list[int]] = []
    missed: list[int] = []
    for place, text in enumerate(texts):
        try:
            ids.append([*chain.from_iterable(map(known, _pieces(text)))])
        except KeyError:
            ids.append([])
            missed.append(place)
    if missed:
        learnt = (_openai_ids if normalisation == "openai" else _transformers_ids)([texts[place] for place in missed])
        for place, found in zip(missed, learnt, strict=True):
            ids[place] = found
    return ids


def count_tokens(texts: Sequence[str], normalisation: Normalisation = "transformers") -> list[int]:
    """The number of content tokens of each text, with nothing cut off."""
    return [len(ids) for ids in batch_ids(texts, normalisation)]


def typed_special_tokens(text: str) -> tuple[Span, ...]:
    """Spans of the names of special tokens in a text, which are read as ordinary text."""
    return tuple(found.span() for found in _TYPED_SPECIAL.finditer(text))


def openai_clean(text: str) -> str:
    """A text as open_clip's tokenizer sees it: ftfy, HTML unescaped twice, white space collapsed, lower case."""
    return " ".join(_repaired(text).split()).lower()


def vocabulary_file() -> Path:
    """open_clip's `bpe_simple_vocab_16e6.txt.gz`, found without importing open_clip. Raises ResourceMissing."""
    spec = find_spec("open_clip")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, "bpe_simple_vocab_16e6.txt.gz")).is_file():
            return path
    raise ResourceMissing("CLIP's vocabulary bpe_simple_vocab_16e6.txt.gz is missing; pip install open_clip_torch")


def _check(normalisation: str) -> None:
    if normalisation not in get_args(Normalisation):
        raise ConfigError(f"unknown normalisation {normalisation!r}; there are {', '.join(get_args(Normalisation))}")


def without_surrogates(text: str) -> str:
    """Halves of surrogate pairs, which no encoding can carry, become U+FFFD; lengths stay."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


# the two ways from text to tokens


def _transformers_rows(text: str) -> list[TokenRow]:
    if text.isascii():
        try:
            return _rows(text, _known_rows)
        except KeyError:
            pass
    alone = len(text) <= _LONG and next(_one_offs) < _FEW
    if len(text) <= _LONG and text.isascii() and (table := _learnt_rows(text, alone)) is not None:
        return _rows(text, table)
    encoding = _encode(_transformers, without_surrogates(text), alone)
    spans = _closed(text, encoding.offsets)
    return [(number, piece, *span) for number, piece, span in zip(encoding.ids, encoding.tokens, spans, strict=True)]


def _closed(text: str, spans: Sequence[Span]) -> list[Span]:
    """Spans, each taken on over the characters that NFC drew into it (`e` and its accent, say).

    Only white space belongs to no token, so what else lies between two tokens was composed into the one before it.
    """
    closed: list[Span] = []
    following, limit = (len(text), len(text)), len(text)
    for start, end in reversed(spans):
        if (start, end) == following:  # another token of the same character
            start, end = closed[-1]
        else:
            following = (start, end)
            while end < limit and not text[end].isspace():
                end += 1
        closed.append((start, end))
        limit = start
    return closed[::-1]


def _openai_rows(text: str) -> Iterator[TokenRow]:
    clean, alignment = _openai_aligned(text)
    words = list(_openai_words().finditer(clean))
    places = [place for word in words for place in (*alignment[slice(*word.span())], _BETWEEN)]
    alone = len(text) <= _LONG and next(_one_offs) < _FEW
    encoding = _encode(_openai, " ".join(word[0] for word in words), alone)
    for number, piece, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True):
        yield number, piece, places[start][0], places[end - 1][1]


def _openai_split(clean: str) -> str:
    """The words of a clean text, joined by spaces, as the model takes them."""
    return " ".join(_openai_words().findall(clean))


def _openai_aligned(text: str) -> tuple[str, tuple[Span, ...]]:
    """The cleaned text and, for each of its characters, a span into the user's own string."""
    repaired = _repaired(text)
    collapsed, places = _collapsed(repaired)
    clean = collapsed.lower()
    lowered = [place for place, old in zip(places, collapsed, strict=True) for _ in old.lower()]
    return clean, through(lowered, align(text, repaired))


def _collapsed(text: str) -> tuple[str, list[Span]]:
    """`" ".join(text.split())`, with a span into `text` for each character."""
    places: list[Span] = []
    kept: list[str] = []
    for at, character in enumerate(text):
        if not character.isspace():
            if kept and at and text[at - 1].isspace():
                kept.append(" ")
                places.append((at - 1, at))
            kept.append(character)
            places.append((at, at + 1))
    return "".join(kept), places


def _repaired(text: str) -> str:
    if _ODD.search(text) is None:
        return text
    return _remembered_repair(text) if len(text) <= _SHORT else _repair(text)


def _repair(text: str) -> str:
    import html

    fixed = _fix_text()(text)
    return html.unescape(html.unescape(fixed)) if "&" in fixed else fixed


_remembered_repair = lru_cache(maxsize=2048)(_repair)  # captions come again in each epoch, prompts in each picture


# pieces between spaces that were seen before
#
# No token reaches over a space, and neither normalisation looks across one, so that the pieces of a text can be
# tokenised one by one, and each of them once. Only for `openai` a text has to be repaired as a whole first: pieces
# that need no repair are remembered under `openai`, those of repaired texts under `clean`.

_known_ids: dict[str, dict[str, tuple[int, ...]]] = {"transformers": {}, "openai": {}, "clean": {}}
_known_rows: dict[str, tuple[TokenRow, ...]] = {}  # of printable ASCII, offsets from the start of the piece


def _pieces(text: str) -> list[str]:
    """A text cut at its spaces; lower case where that is sure to change nothing but the number of different pieces."""
    return (text.lower() if text.isascii() else text).split(" ")


def _learn(known: dict[str, _Known], new: dict[str, _Known]) -> None:
    """Remember more pieces, and forget all others where they become too many."""
    if len(known) + len(new) > _MOST_KNOWN:
        known.clear()
    if len(new) <= _MOST_KNOWN:
        known.update((piece, found) for piece, found in new.items() if len(piece) <= _LONGEST_KNOWN)


def _transformers_ids(texts: Sequence[str]) -> list[list[int]]:
    return _piecewise(_transformers, without_surrogates, [_pieces(text) for text in texts], _known_ids["transformers"])


def _openai_ids(texts: Sequence[str]) -> list[list[int]]:
    plain = [_ODD.search(text) is None for text in texts]
    both = list(zip(texts, plain, strict=True))
    raw = [_pieces(text) for text, easy in both if easy]
    clean = [openai_clean(text).split(" ") for text, easy in both if not easy]
    found = iter(_piecewise(_openai, _openai_split, raw, _known_ids["openai"]))
    repaired = iter(_piecewise(_openai, _openai_split, clean, _known_ids["clean"]))
    return [next(found if easy else repaired) for easy in plain]


def _piecewise(
    frame: Callable[[], Tokenizer],
    prepared: Callable[[str], str],
    texts: Sequence[Sequence[str]],
    known: dict[str, tuple[int, ...]],
) -> list[list[int]]:
    """The ids of texts cut into pieces. `prepared` makes of a piece what the model of a frame takes."""
    table: dict[str, tuple[int, ...]] = {}
    new: list[str] = []
    for piece in dict.fromkeys(chain.from_iterable(texts)):
        if (ids := known.get(piece)) is None:
            new.append(piece)
        else:
            table[piece] = ids
    if new:
        encodings = _with_model(frame).encode_batch_fast([prepared(piece) for piece in new], add_special_tokens=False)
        learnt = {piece: tuple(encoding.ids) for piece, encoding in zip(new, encodings, strict=True)}
        _learn(known, learnt)
        table.update(learnt)
    return [[*chain.from_iterable(map(table.__getitem__, pieces))] for pieces in texts]


def _rows(text: str, table: Mapping[str, tuple[TokenRow, ...]]) -> list[TokenRow]:
    """The rows of an ASCII text whose pieces are all in a table. Raises KeyError where one is not."""
    return _placed_rows(text.lower().split(" "), 0, table)


def _placed_rows(pieces: Sequence[str], at: int, table: Mapping[str, tuple[TokenRow, ...]]) -> list[TokenRow]:
    """Return the rows of pieces that stand in a text from `at` on, a space apart."""
    places = accumulate([len(piece) + 1 for piece in pieces], initial=at)
    return [
        (number, name, at + start, at + end)
        for piece, at in zip(pieces, places, strict=False)
        for number, name, start, end in table[piece]
    ]


def _learnt_rows(text: str, alone: bool) -> dict[str, tuple[TokenRow, ...]] | None:
    """Return the rows of each piece of an ASCII text, remembered too; None where a piece is not fit to be remembered.

    alone: without the whole model, which takes longer to build than a prompt to read.
    """
    table: dict[str, tuple[TokenRow, ...]] = {}
    for piece in set(text.lower().split(" ")):
        if len(piece) > _LONGEST_KNOWN or not _PRINTABLE.fullmatch(piece):
            return None
        found = _known_rows.get(piece)
        if found is None:
            found = tuple(byte_pairs.rows(piece)) if alone else _modelled_rows(piece)
        table[piece] = found
    _learn(_known_rows, table)
    return table


def _modelled_rows(piece: str) -> tuple[TokenRow, ...]:
    whole = _with_model(_transformers).encode(piece, add_special_tokens=False)
    parts = zip(whole.ids, whole.tokens, whole.offsets, strict=True)
    return tuple([(number, name, *span) for number, name, span in parts])


# the machinery, built when it is first needed


def _byte_characters() -> list[str]:
    """The character that stands for each byte, in the order of the vocabulary's first 256 ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(printable))
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(others)]


def merges() -> list[tuple[str, str]]:
    """Return CLIP's merges in order of rank, as the two pieces that each joins."""
    return [(first, second) for first, _, second in (line.partition(" ") for line in _merges().split("\n"))]


def vocabulary() -> tuple[list[str], list[str]]:
    """Return CLIP's pieces in order of their ids, special tokens included, and its merges as lines `first second`."""
    single, lines = _byte_characters(), _merges().split("\n")
    made = [line.replace(" ", "") for line in lines]
    return [*single, *(one + "</w>" for one in single), *made, "<|startoftext|>", "<|endoftext|>"], lines


@cache
def _merges() -> str:
    """Return the lines `first second` of CLIP's merges in order of rank; `rank` makes the piece of id 512 + `rank`."""
    import gzip

    text = gzip.decompress(vocabulary_file().read_bytes()).decode("utf-8")
    return "\n".join(text.split("\n", _MERGES + 1)[1:-1])


def _model(words: Sequence[str] | None = None) -> BPE:
    """The byte-pair model of CLIP without its two special tokens; with `words`, what they need of it.

    A merge can only act on a word that contains what it makes. Leaving out the others changes no id and saves nine
    tenths of the time that building takes, which is most of the time that a single prompt takes.
    """
    from tokenizers.models import BPE

    single = _byte_characters()
    vocabulary = {piece: number for number, piece in enumerate([*single, *(one + "</w>" for one in single)])}
    lines, made = _merges().split("\n"), _merges().replace(" ", "").split("\n")
    ranks: Sequence[int] = range(_MERGES)
    if words is not None:
        needed = "".join(word + "</w> " for word in words)
        ranks = [rank for rank, piece in enumerate(made) if piece in needed]
    vocabulary.update((made[rank], 512 + rank) for rank in ranks)
    pairs = [(first, second) for first, _, second in (lines[rank].partition(" ") for rank in ranks)]
    return BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix="</w>")


_whole_model = cache(_model)
_one_offs = count()  # texts that were tokenised on their own so far


def _encode(frame: Callable[[], Tokenizer], text: str, alone: bool) -> Encoding:
    """One text; `alone` without the whole model, as the first few in a process are, `clipcond tokens` that is."""
    if not alone:
        return _with_model(frame).encode(text, add_special_tokens=False)
    tokenizer = frame()
    normal = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    tokenizer.model = _model([word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)])
    return tokenizer.encode(text, add_special_tokens=False)


@cache
def _with_model(frame: Callable[[], Tokenizer]) -> Tokenizer:
    """A frame with the whole model in it."""
    tokenizer = frame()
    tokenizer.model = _whole_model()
    return tokenizer


def _transformers() -> Tokenizer:
    """The parts of transformers' `CLIPTokenizer` around its model, without its special tokens."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def _openai() -> Tokenizer:
    """The byte-pair step of open_clip's tokenizer around its model: takes clean words, joined by spaces.

    A list of words would do as well, but `tokenizers` imports numpy to look at one.
    """
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE())
    spaces, to_bytes = pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, to_bytes])
    return tokenizer


@cache
def _fix_text() -> Callable[[str], str]:
    """ftfy's `fix_text` as open_clip calls it, without making up its settings again for each text."""
    import ftfy

    settings = ftfy.TextFixerConfig(explain=False)
    return lambda text: ftfy.fix_text(text, settings)


@cache
def _openai_words() -> re.Pattern[str]:
    """open_clip's own pattern on the same `regex` package: another Unicode version would split other words."""
    import regex  # type: ignore[import-untyped]

    pattern: re.Pattern[str] = regex.compile(_WORDS, regex.IGNORECASE)
    return pattern
