"""A data source and the settings of a run before it: what was read as what, rows that will not do, lengths, rates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from clipcond.errors import ConfigError, DataError
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.train.check import NOTE, OK, SHOWN, STOPS, WARNING, Check
from clipcond.train.config import TrainConfig
from clipcond.train.data import Pairs
from clipcond.train.rates import collapse
from clipcond.train.schedule import lengths, steps_per_epoch
from clipcond.train.tables import table_outline

_SMALL_BATCH = 16  # pairs, of which each is held against fifteen others


def check_source(data: str, pairs: Pairs) -> Check:
    """Say as what the source was read, with a table's separator and columns, and what else of it is not used."""
    path = Path(pairs.source)
    kind = table_outline(path) if path.is_file() else None
    if kind is None:
        kind = "WebDataset tars" if pairs.images[0].name else "a folder of pictures with texts beside them"
    several = sum(len(captions) > 1 for captions in pairs.captions)
    text = f"{kind}; {counted(len(pairs), 'image')}, {counted(sum(map(len, pairs.captions)), 'caption')}"
    if several:
        text += f" ({counted(several, 'image')} with several)"
    numbers = {"images": len(pairs), "captions": sum(map(len, pairs.captions))}
    verdict = NOTE if pairs.notes else OK
    return Check(name="data", verdict=verdict, text=text, examples=pairs.notes[:SHOWN], numbers=numbers)


def check_rows(pairs: Pairs, max_bad_rows: int) -> Check:
    """Count the rows that will not do, by the kind of their fault; more than `max_bad_rows` of them stop the run."""
    kinds = Counter(pairs.faults)
    count = len(pairs.left_out)
    numbers = {"bad": count, "max_bad_rows": max_bad_rows, **{kind.replace(" ", "_"): n for kind, n in kinds.items()}}
    if not count:
        return Check(name="rows", verdict=OK, text="every row names a picture that is there and words", numbers=numbers)
    told = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    stops = count > max_bad_rows
    text = f"{counted(count, 'row')} will not do ({told}); max_bad_rows is {max_bad_rows}"
    text += f": mend them, or give --max-bad-rows {count}" if stops else ", so they are left out"
    return Check(
        name="rows", verdict=STOPS if stops else WARNING, text=text, examples=pairs.left_out[:SHOWN], numbers=numbers
    )


def check_steps(config: TrainConfig, pairs: Pairs) -> Check:
    """Tell the steps of an epoch, of the run and of its warm-up; a batch or a warm-up that is too long stops it."""
    try:
        per_epoch = steps_per_epoch(pairs, config.batch_size)
        steps, warmup = lengths(config, per_epoch)
    except (DataError, ConfigError) as error:
        most = len(pairs.shown())
        advice = f"; give --batch-size {most} or less" if isinstance(error, DataError) and most >= 2 else ""
        return Check(name="steps", verdict=STOPS, text=f"{error}{advice}")
    numbers = {"steps_per_epoch": per_epoch, "steps": steps, "warmup": warmup, "batch_size": config.batch_size}
    text = (
        f"{counted(per_epoch, 'step')} an epoch of batches of {config.batch_size}; {counted(steps, 'step')}, "
        f"{warmup} of warm-up, {steps / per_epoch:.1f} epochs"
    )
    odd = [
        f"the warm-up is {warmup / steps:.0%} of the run, a tenth is usual" if warmup > steps / 2 else "",
        f"a batch of {config.batch_size} holds each pair against few others; 256 is usual"
        if config.batch_size < _SMALL_BATCH and config.contrastive else "",
    ]  # fmt: skip
    told = [each for each in odd if each]
    return Check(name="steps", verdict=WARNING if told else OK, text="; ".join([text, *told]), numbers=numbers)


def check_rate(config: TrainConfig) -> Check:
    """Warn at a learning rate at which pretrained towers are known to collapse."""
    if told := collapse(config):
        return Check(name="learning rate", verdict=WARNING, text=told)
    return Check(name="learning rate", verdict=OK, text=f"{config.learning_rate:g}")
