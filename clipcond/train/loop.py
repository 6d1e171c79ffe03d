"""The training loop, read from top to bottom."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import ConfigError, DataError, OutputExists
from clipcond.files import write_file
from clipcond.images.preprocess import Preprocess
from clipcond.models.open_clip_folder import write_open_clip_folder
from clipcond.models.trainable import load_trainable
from clipcond.runtime.devices import device_of
from clipcond.score.retrieval import Retrieval
from clipcond.train import checkpoints
from clipcond.train.batches import Batch, Batches, id_rows
from clipcond.train.config import TrainConfig
from clipcond.train.data import Pairs, Pixels, preflight, read_pairs, split
from clipcond.train.evaluate import Gallery, gallery, score_gallery
from clipcond.train.losses import clamp_logit_scale, info_nce
from clipcond.train.model import check_model, freeze, image_features, text_features, use_plain_attention
from clipcond.train.optimizer import Optimizer, learning_rate_at

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run came to. `model` is None, and `interrupted` true, if a signal ended it before its last step."""

    steps: int
    loss: float | None
    retrieval: Retrieval | None
    model: Path | None
    interrupted: bool


def train(config: TrainConfig, *, report: Report | None = None, allow_changes: bool = False) -> TrainResult:
    """Train both towers, or what `config.freeze` leaves of them, and write them to `out/model`, an open_clip folder.

    Goes on from the last checkpoint in `out/checkpoints`, in mid-epoch too: on a CPU with the same number of threads
    the weights are those of a run that was never interrupted, bit for bit. SIGINT and SIGTERM finish the step, save and
    return. Every log line goes to `out/log.jsonl` and to `report`.

    allow_changes: resume even if settings or data differ from the checkpoint's.
    Raises DataError and ModelError before the first step, OutputExists if `out` holds a model or a
    config that this run did not write, ConfigError for a refused resumption or a loss that is not finite. A picture that
    turns out unreadable on the way is a DataError after saving.
    """
    out = Path(config.out)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = device_of(config.device)

    source = load_trainable(config.model, random_weights=config.init == "random")
    model, preprocess = source.model, source.preprocess
    check_model(model)
    freeze(model, config.freeze)
    use_plain_attention(model)
    model.to(device).train()
    optimizer = Optimizer(model, config)
    normalise = _normaliser(preprocess, device)

    pairs, held_out = _data(config)
    preflight(pairs, preprocess)
    batches = Batches(
        pairs, Pixels(pairs, preprocess, config.cache_gib),
        batch_size=config.batch_size, seed=config.seed, captions=config.captions,
    )  # fmt: skip
    total = config.steps or max(1, round((config.epochs or 5) * batches.per_epoch))
    warmup = config.warmup if config.warmup is not None else min(500, math.ceil(total / 10))
    if warmup >= total:
        raise ConfigError(f"warmup is {warmup} steps, the whole run {total}; expected fewer")
    measure = _measure(model, held_out, preprocess, normalise, config.cache_gib) if held_out is not None else None

    fingerprint = pairs.fingerprint()
    first, seen_cut = 0, 0
    saved = checkpoints.existing(out / "checkpoints")
    if not saved and (out / "model").exists():
        raise OutputExists(
            f"{out / 'model'} is there, but no checkpoint to go on from; choose another out or remove it"
        )
    if (out / "config.json").exists() and not (out / "log.jsonl").exists():
        raise OutputExists(f"{out / 'config.json'} is there, but {out} is no training run; choose another out")
    if saved:
        state = checkpoints.read(saved[-1])
        if not allow_changes:
            checkpoints.refuse_changes(state, config, fingerprint, where=saved[-1])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        first, seen_cut = state["step"], state["cut"]

    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "config.json", json.dumps(config.to_dict(), indent=2) + "\n", overwrite=True)

    def log(**values: Any) -> None:
        line = {"step": step, "time": round(time.time(), 2), **values}
        with (out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if report:
            report(line)

    def save() -> Path:
        state = {
            "step": step, "cut": seen_cut, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(), "config": json.dumps(config.to_dict()), "data": fingerprint,
        }  # fmt: skip
        return checkpoints.write(out / "checkpoints", state, keep=config.keep)

    step, loss_sum, since, found = first, 0.0, time.monotonic(), None
    last_loss, counted = None, 0
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log(event="resume" if saved else "start", steps=total, steps_per_epoch=batches.per_epoch, warmup=warmup,
        images=len(pairs), captions=sum(map(len, pairs.captions)), trainable=trainable, device=str(device),
        threads=torch.get_num_threads())  # fmt: skip

    with _signals() as stopped:
        for batch in _saving(batches.ahead(first, total), save):
            rate = learning_rate_at(step, total, config.rate, warmup)
            optimizer.zero_grad()
            with _autocast(config.precision, device):
                images = image_features(model, normalise(batch.pixels))
                texts = text_features(model, torch.from_numpy(batch.ids).to(device))
            loss = info_nce(images, texts, model.logit_scale)
            value = float(loss.detach())
            _check_finite("loss", value, step + 1, config)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(optimizer.clip(config.grad_clip))
            _check_finite("gradient's norm", norm, step + 1, config)
            optimizer.step(rate)
            clamp_logit_scale(model.logit_scale)

            step += 1
            seen_cut += batch.cut
            loss_sum, counted, last_loss = loss_sum + value, counted + 1, value
            if step % config.log_every == 0 or step == total:
                now = time.monotonic()
                log(loss=round(loss_sum / counted, 5), rate=rate, grad_norm=round(norm, 4),
                    logit_scale=round(float(model.logit_scale.detach().exp()), 3),
                    pairs_per_second=round(counted * config.batch_size / (now - since), 1),
                    cut_captions=round(seen_cut / (step * config.batch_size), 4))  # fmt: skip
                loss_sum, counted, since = 0.0, 0, now
            if measure and (step % config.eval_every == 0 or step == total):
                found = measure()
                log(event="evaluation", **found.to_dict())
                since = time.monotonic() if not counted else since
            if step % config.save_every == 0 or step == total or stopped():
                save()
            if stopped() and step < total:
                log(event="interrupted")
                return TrainResult(steps=step, loss=last_loss, retrieval=found, model=None, interrupted=True)

    if measure and found is None:  # resumed after the last step
        found = measure()
    written = write_open_clip_folder(model, source.config, out / "model")
    log(event="done", model=str(written))
    return TrainResult(steps=step, loss=last_loss, retrieval=found, model=written, interrupted=False)


def _check_finite(what: str, value: float, step: int, config: TrainConfig) -> None:
    """Raise ConfigError, naming the last good checkpoint, before a step that would spoil the weights."""
    if not math.isfinite(value):
        kept = checkpoints.existing(Path(config.out) / "checkpoints")
        good = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        raise ConfigError(f"the {what} is {value} at step {step}; {good}; lower the rate ({config.rate:g})")


def _saving(batches: Iterator[Batch], save: Callable[[], object]) -> Iterator[Batch]:
    """The batches; where one cannot be made, what was trained so far is saved before its DataError goes on."""
    try:
        yield from batches
    except DataError:
        save()
        raise


def _data(config: TrainConfig) -> tuple[Pairs, Pairs | None]:
    pairs = read_pairs(config.data)
    if config.val_data:
        return pairs, read_pairs(config.val_data)
    return split(pairs, config.val_count, config.seed) if config.val_count else (pairs, None)


def _normaliser(preprocess: Preprocess, device: torch.device) -> Callable[[np.ndarray], Tensor]:
    """(B, 3, H, W) uint8 to float32 in the model's own mean and deviation, on the device."""
    mean = torch.tensor(preprocess.mean, device=device)[:, None, None] * 255
    deviation = torch.tensor(preprocess.std, device=device)[:, None, None] * 255
    return lambda pixels: (torch.from_numpy(pixels).to(device).float() - mean) / deviation


def _measure(
    model: Any,
    pairs: Pairs,
    preprocess: Preprocess,
    normalise: Callable[[np.ndarray], Tensor],
    cache_gib: float,
) -> Callable[[], Retrieval]:
    """Retrieval on the held-out pairs with the model as it stands, in float32."""
    of: Gallery = gallery(pairs)
    pixels = Pixels(pairs, preprocess, cache_gib)

    def embed_images(rows: np.ndarray) -> Tensor:
        return image_features(model, normalise(pixels[rows])).cpu()

    def embed_texts(said: list[str]) -> Tensor:
        return text_features(model, torch.from_numpy(id_rows(said)[0]).to(model.logit_scale.device)).cpu()

    def measure() -> Retrieval:
        model.eval()
        with torch.no_grad():
            found = score_gallery(of, embed_images, embed_texts)
        model.train()
        return found

    return measure


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; outside the main thread, where none can be caught, never."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {
        kind: signal.signal(kind, lambda number, _: came.append(number)) for kind in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(came)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
