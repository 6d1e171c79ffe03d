"""Batches as a pure function of the step, prepared ahead by one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipcond.prompt.tokenizer import BOS, CONTENT, EOS, batch_ids
from clipcond.train.augment import AugmentedPixels
from clipcond.train.data import Pairs
from clipcond.train.hard_negatives import Drawn, HardNegatives, picture_key
from clipcond.train.match_ids import PairKeys, match_ids
from clipcond.train.pixels import Pixels
from clipcond.train.ranks import ALONE, Ranks
from clipcond.train.schedule import steps_per_epoch


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's pairs, or a rank's share of them.

    rows: (B,) int64, the images' numbers in the run's pairs. pixels: (B, H, W, 3) uint8, None in a run that reads none.
    ids: (B, L) int64. cut: how many captions were cut. matches: ids of the images and of the texts,
    (B + F, K) and (B + E, K) int64, equal in some column where a text belongs to another row's image; None where there is
    no such text.
    drawn: (B,) int64, the number of each caption among those of its image. negative_ids: (E, L) int64 and
    negative_pixels: (F, H, W, 3) uint8, hard negatives; None without any.
    """

    step: int
    rows: np.ndarray
    pixels: np.ndarray | None
    ids: np.ndarray
    cut: int
    matches: tuple[np.ndarray, np.ndarray] | None = None
    drawn: np.ndarray | None = None
    negative_ids: np.ndarray | None = None
    negative_pixels: np.ndarray | None = None

    def part(self, rows: slice) -> Batch:
        """Return the pictures and captions of some rows, without what relates rows to one another."""
        pixels = None if self.pixels is None else self.pixels[rows]
        return Batch(self.step, self.rows[rows], pixels, self.ids[rows], 0)


class Batches:
    """The order in which a run sees its pairs: shuffled anew in each epoch, the same for the same seed."""

    def __init__(
        self, pairs: Pairs, pixels: Pixels | AugmentedPixels | None, *, batch_size: int, seed: int, captions: str = "random",
        hard_negatives: HardNegatives | None = None, ranks: Ranks = ALONE, content: int = CONTENT,
    ) -> None:  # fmt: skip
        """batch_size: of all ranks together; each decodes and tokenises its own share, of equal size.

        content: the most tokens of a caption, between BOS and EOS.
        """
        self._shown = pairs.shown()
        self.per_epoch = steps_per_epoch(pairs, batch_size)
        self.pairs, self.pixels, self.batch_size, self.seed = pairs, pixels, batch_size, seed
        self._any = captions == "random"
        self._hard, self._content = hard_negatives, content
        share = batch_size // ranks.count
        self._own = slice(ranks.rank * share, (ranks.rank + 1) * share)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def rows(self, step: int) -> np.ndarray:
        """Return the (B,) rows of a step, counted from 0, of all ranks."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = self._shown[np.random.default_rng([self.seed, 2, epoch]).permutation(len(self._shown))]
            self._epoch = epoch
        return self._order[index * self.batch_size : (index + 1) * self.batch_size]

    def __getitem__(self, step: int) -> Batch:
        rows, own = self.rows(step), self._own
        draw = np.random.default_rng([self.seed, 3, step]).random(len(rows))
        said = [self.pairs.captions[row] for row in rows]
        drawn = np.array([int(share * len(of)) if self._any else 0 for of, share in zip(said, draw, strict=True)])
        texts = [of[number] for of, number in zip(said, drawn, strict=True)]
        hard = self._hard.draw(rows, step) if self._hard else Drawn()
        ids, cut = id_rows(texts[own], content=self._content)
        negative_ids, negative_pixels = None, None
        if self._hard:
            mine = hard.of(own)
            negative_ids = id_rows(mine.texts, content=self._content)[0] if mine.texts else None
            negative_pixels = self._hard.pixels(mine)
        pixels = None if self.pixels is None else self.pixels.at(step, rows[own])
        return Batch(
            step, rows[own], pixels, ids, cut, self._matches(rows, said, texts, hard), drawn[own],
            negative_ids, negative_pixels,
        )  # fmt: skip

    def _matches(
        self, rows: np.ndarray, said: Sequence[Sequence[str]], texts: Sequence[str], hard: Drawn
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Find what belongs together in the whole batch; return the ids of the own share."""
        relations = self.pairs.relations
        found = match_ids(
            [
                PairKeys(
                    captions=own, drawn=text, groups=relations[row].groups if relations else (),
                    picture=picture_key(self.pairs.images[row]) if hard.pictures else "",
                )
                for row, own, text in zip(rows, said, texts, strict=True)
            ],
            hard.texts, [picture_key(source) for source in hard.pictures],
        )  # fmt: skip
        if found is None:
            return None
        count, own = len(rows), range(len(rows))[self._own]
        images = [*own, *(count + n for n in hard.pictures_of(self._own))]
        captions = [*own, *(count + n for n in hard.texts_of(self._own))]
        return found[0][images], found[1][captions]

    def ahead(self, start: int, stop: int, *, depth: int = 3) -> Generator[Batch, None, None]:
        """Yield the batches of steps `start` to `stop`; a thread prepares them `depth` ahead, and its errors come out here."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        leave = threading.Event()

        def put(item: Batch | BaseException) -> bool:
            while not leave.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for step in range(start, stop):
                    if not put(self[step]):
                        return
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=work, name="clipcond-batches", daemon=True)
        thread.start()
        try:
            for _ in range(start, stop):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            leave.set()
            thread.join()


def id_rows(
    texts: Sequence[str], normalisation: Literal["openai", "transformers"] = "openai", *, content: int = CONTENT
) -> tuple[np.ndarray, int]:
    """Return (B, L) int64 ids, L that of the longest row, padded with EOS, and how many texts were cut to `content` tokens."""
    rows = batch_ids(list(texts), normalisation)
    length = min(content, max(map(len, rows))) + 2
    ids = np.full((len(rows), length), EOS, dtype=np.int64)
    ids[:, 0] = BOS
    for row, tokens in zip(ids, rows, strict=True):
        kept = tokens[:content]
        row[1 : 1 + len(kept)] = kept
    return ids, sum(len(tokens) > content for tokens in rows)
