"""CLIP's byte-pair encoding of one ASCII word at a time, without building a tokenizer.

A process that counts one prompt needs a few hundred of CLIP's 48,894 merges. They are looked up in `merges.bin`, which
holds those that make printable ASCII, grouped by the first two characters of what they make; only the groups that a word
touches are unpacked. Ids are those of `tokenizers`, which reads everything else.

merges.bin: `HEADER` with the number of groups; for each group `GROUP`: its two characters, the number of its merges, where
its text starts; then for all merges, group by group, the rank (uint16), then the length of the first half (uint8); then
the text: what each merge makes, one line each.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from struct import Struct

FILE = "merges.bin"
HEADER, GROUP = Struct("<8sH"), Struct("<2sHI")
_MAGIC = b"clipbpe1"
_FIRST_MERGE = 512  # ids below are single characters: 256 inside a word, 256 at its end
_END = "</w>"
# CLIP's words where all letters are ASCII and lower case
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def rows(text: str) -> Iterator[tuple[int, str, int, int]]:
    """Yield (id, piece, start, end) of each token of a text of lower-case printable ASCII characters."""
    for word in _WORD.finditer(text):
        at = word.start()
        for piece in _pieces(word[0]):
            end = at + len(piece.removesuffix(_END))
            yield _id(piece), piece, at, end
            at = end


@cache
def _pieces(word: str) -> tuple[str, ...]:
    """Join the neighbours of lowest rank until none can be joined; of equal ones the first."""
    pieces = [*word[:-1], word[-1] + _END]
    while len(pieces) > 1:
        ranks = [_rank(first, second) for first, second in pairwise(pieces)]
        lowest = min(ranks)
        if lowest == _NEVER:
            break
        at = ranks.index(lowest)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return tuple(pieces)


_NEVER = 1 << 16


def _rank(first: str, second: str) -> int:
    """Return the rank of the merge of two pieces, `_NEVER` where CLIP has none."""
    made = first + second
    rank, length = _group(made[:2]).get(made, (_NEVER, 0))
    return rank if length == len(first) else _NEVER


def _id(piece: str) -> int:
    """Return the id of a piece, a single character or what a merge makes."""
    if len(piece) > 1 and (found := _group(piece[:2]).get(piece)) is not None:
        return _FIRST_MERGE + found[0]
    return ord(piece[0]) - ord("!") + 256 * piece.endswith(_END)


@cache
def _group(start: str) -> dict[str, tuple[int, int]]:
    """Return the merges whose result begins with two characters: what they make → rank, length of the first half."""
    content, groups, ranks, lengths = _file()
    if start not in groups:
        return {}
    first, count, offset = groups[start]
    ends_at = content.find(b"\n\n", offset)
    made = content[offset:ends_at].decode("ascii").split("\n")
    span = slice(first, first + count)
    return dict(zip(made, zip(ranks[span], lengths[span], strict=True), strict=True))


@cache
def _file() -> tuple[bytes, dict[str, tuple[int, int, int]], array[int], bytes]:
    """Return the content of merges.bin, its groups as (first merge, merges, start of the text), ranks and lengths."""
    content = Path(__file__).with_name(FILE).read_bytes()
    _, count = HEADER.unpack_from(content)
    groups, merges = {}, 0
    at = HEADER.size
    for start, own, offset in GROUP.iter_unpack(content[at : at + count * GROUP.size]):
        groups[start.decode("ascii")] = (merges, own, offset)
        merges += own
    at += count * GROUP.size
    ranks = array("H", content[at : at + 2 * merges])
    if sys.byteorder == "big":
        ranks.byteswap()
    at += 2 * merges
    return content, groups, ranks, content[at : at + merges]


def packed(merges: Sequence[tuple[str, str]]) -> bytes:
    """Return the content of merges.bin for CLIP's merges in order of rank; those of other than ASCII are left out."""
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for rank, (first, second) in enumerate(merges):
        if (made := first + second).isascii():
            groups.setdefault(made[:2], []).append((made, rank, len(first)))
    everything = [merge for group in groups.values() for merge in group]
    ranks = array("H", [rank for _, rank, _ in everything]).tobytes()
    lengths = bytes(length for *_, length in everything)
    at = HEADER.size + len(groups) * GROUP.size + len(ranks) + len(lengths)
    head, texts = [HEADER.pack(_MAGIC, len(groups))], []
    for start, group in groups.items():
        text = "\n".join(made for made, *_ in group).encode("ascii") + b"\n\n"
        head.append(GROUP.pack(start.encode("ascii"), len(group), at))
        texts.append(text)
        at += len(text)
    return b"".join([*head, ranks, lengths, *texts])
