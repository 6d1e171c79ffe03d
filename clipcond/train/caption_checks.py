"""Captions before a run: what is cut, what the tower has never seen, what several pictures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from clipcond.encode.unseen_words import TokenRows, unseen_words
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import CONTENT, batch_ids, rows_beyond
from clipcond.train.check import NOTE, OK, SHOWN, WARNING, Check, short
from clipcond.train.config import TrainConfig
from clipcond.train.data import Pairs, same_caption

_MOST_READ = 2000  # captions whose unseen words are named


def captions_of(pairs: Pairs, most: int | None = None) -> list[str]:
    """Return the captions of all pictures, or of evenly spread ones."""
    rows = range(len(pairs)) if most is None else pairs.sample(most)
    return [caption for row in rows for caption in pairs.captions[row]]


def check_lengths(captions: Sequence[str], ids: Sequence[Sequence[int]], content: int = CONTENT) -> Check:
    """Count the captions beyond `content` tokens, and show what of the longest ones is lost. ids: of the captions."""
    over = [at for at, row in enumerate(ids) if len(row) > content]
    longest = max(map(len, ids), default=0)
    share, lost = len(over) / max(1, len(captions)), sum(len(ids[at]) - content for at in over)
    numbers = {
        "captions": len(captions), "over": len(over), "share": round(share, 6), "lost_content_tokens": lost,
        "longest": longest,
    }  # fmt: skip
    if not over:
        return Check(
            name="length", verdict=OK, text=f"no caption is beyond {content} tokens, the longest has {longest}",
            numbers=numbers,
        )  # fmt: skip
    text = (
        f"{len(over):,} of {counted(len(captions), 'caption')} ({share:.1%}) are beyond {content} tokens and lose "
        f"{counted(lost, 'token')}; the longest has {longest}"
    )
    worst = sorted(over, key=lambda at: -len(ids[at]))[:SHOWN]
    examples = tuple(f"{len(ids[at])} tokens, lost: {short(lost_of(captions[at], content))}" for at in worst)
    return Check(name="length", verdict=WARNING, text=text, examples=examples, numbers=numbers)


def lost_of(caption: str, content: int = CONTENT) -> str:
    """Return the end of a caption that a text tower never reads, which takes so many tokens of content."""
    rows = rows_beyond(caption, content)
    return caption[rows[0][2] :] if rows else ""


def check_words(
    captions: Sequence[str],
    ids: Sequence[Sequence[int]],
    table: TokenRows | None,
    config: TrainConfig,
    *,
    why: str = "",
) -> Check:
    """Name the words whose rows of the token table are zero. why: the reason there is no table to look at."""
    if table is None:
        return Check(name="words", verdict=OK, text=f"not looked at: {why}")
    unknown = table.untrained({each for row in ids for each in row})
    touched = [at for at, row in enumerate(ids) if not unknown.isdisjoint(row)]
    counts = _unseen(captions, touched, table)
    numbers = {"captions": len(captions), "captions_with_unseen": len(touched), "unseen_words": len(counts)}
    if not counts:
        return Check(
            name="words", verdict=OK, text="the text tower has been trained on every token of the captions",
            numbers=numbers,
        )  # fmt: skip
    verdict, text = _of_unseen(config, len(touched), len(captions))
    named = [
        f"{short(word, 40)} ({count} {'captions' if count > 1 else 'caption'})" for word, count in counts.most_common(8)
    ]
    return Check(name="words", verdict=verdict, text=text, examples=(", ".join(named),), numbers=numbers)


def _unseen(captions: Sequence[str], touched: Sequence[int], table: TokenRows) -> Counter[str]:
    """Count the unseen words of some captions, by how many of them hold each."""
    counts: Counter[str] = Counter()
    for caption, times in Counter(captions[at] for at in touched).most_common(_MOST_READ):
        encoder = plan(caption, dialect="plain").encoders["clip_l"]
        tokens = [token for chunk in encoder.chunks for token in chunk.tokens]
        for word in unseen_words(table, tokens):
            counts[word] += times
    return counts


def _of_unseen(config: TrainConfig, touched: int, captions: int) -> tuple[str, str]:
    found = f"{touched:,} of {counted(captions, 'caption')} hold words that {config.model} has never seen"
    if config.unseen_rate is not None:
        return NOTE, f"{found}; their rows train at unseen_rate {config.unseen_rate:g}"
    if "text" in config.freeze or config.train_blocks is not None:
        return WARNING, f"{found}, and their rows stay as they are; unseen_rate would train them"
    return NOTE, f"{found}; unseen_rate would give their rows a rate of their own"


def check_same_captions(pairs: Pairs, config: TrainConfig) -> Check:
    """Count the pictures that share a caption, and the pairs of them that a batch will hold: false negatives."""
    owners = caption_owners(pairs)
    sharing = {row for rows in owners.values() for row in rows if len(rows) > 1}
    expected = _expected_couples(pairs, owners.values(), config.batch_size)
    count = len(pairs)
    numbers = {"images_sharing": len(sharing), "pairs_a_batch": round(expected, 2)}
    if not sharing and not pairs.repeats:
        return Check(name="same captions", verdict=OK, text="no two images share a caption", numbers=numbers)
    meaning = "left out of the loss" if config.positives == "mask" else "counted as positive"
    repeated = ", and some are repeated" if pairs.repeats else ""
    text = (
        f"{len(sharing):,} of {counted(count, 'image')} share a caption with another{repeated}: about {expected:.1f} pairs "
        f"a batch, which are {meaning}"
    )
    most = sorted(owners.items(), key=lambda item: -len(item[1]))[:SHOWN]
    examples = tuple(f"{len(rows)} images: {short(caption)}" for caption, rows in most if len(rows) > 1)
    return Check(name="same captions", verdict=NOTE, text=text, examples=examples, numbers=numbers)


def _expected_couples(pairs: Pairs, owners: Iterable[Sequence[int]], batch_size: int) -> float:
    """Return how many couples of one caption, or of one repeated image, a batch holds in the mean."""
    times = list(pairs.repeats) or [1] * len(pairs)
    shown = sum(times)
    couples = sum(each * (each - 1) / 2 for each in times)
    for rows in owners:
        own = [times[row] for row in rows]
        couples += (sum(own) ** 2 - sum(each * each for each in own)) / 2
    batch = min(batch_size, shown)
    return couples * batch * (batch - 1) / max(1, shown * (shown - 1))


def caption_owners(pairs: Pairs) -> Mapping[str, list[int]]:
    """Return the rows that have each caption, captions as CLIP reads them."""
    owners: dict[str, list[int]] = {}
    for row, captions in enumerate(pairs.captions):
        for key in {same_caption(caption) for caption in captions}:
            owners.setdefault(key, []).append(row)
    return owners


def ids_of(captions: Sequence[str]) -> list[list[int]]:
    """Return the content tokens of captions as training reads them, none cut off."""
    return batch_ids(captions, "openai")
