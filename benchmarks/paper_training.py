"""Small trainings on the packed emoji that differ in one thing each, and what each of them can then tell apart.

One image tower and one schedule for all: contrastive with a text tower, supervised with a class for each emoji, and a
prediction of the caption's words. Losses, models and learning rates are clipcond's own; pictures are augmented on the device.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from paper_data import TEMPLATES, TESTS, PackedEmoji
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, log_softmax, normalize
from torch.utils.flop_counter import FlopCounterMode

from clipcond.files import write_file
from clipcond.images.preprocess import Preprocess
from clipcond.models.open_clip_build import buildable, builder
from clipcond.prompt.tokenizer import EOS
from clipcond.train.losses.info_nce import info_nce
from clipcond.train.losses.matches import Matches
from clipcond.train.losses.temperature import clamp_logit_scale
from clipcond.train.model import image_features, text_state
from clipcond.train.optimizer import clip_gradients, learning_rate_at, split_by_decay

BATCH, RATE, DECAY, BETAS, CLIP = 256, 1e-3, 0.1, (0.9, 0.98), 1.0
LEAST_AREA, ASPECT, TURN, JITTER = 0.6, 4 / 3, 15.0, 0.4  # of a crop; degrees; brightness, contrast and saturation
CHECKPOINTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # of a run, where it is measured
_GREY = (0.299, 0.587, 0.114)
_EVALUATED_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training. kind: `contrastive`, `supervised` or `words`.   temperature: a fixed scale of the logits, or learned."""

    name: str
    kind: str = "contrastive"
    batch: int = BATCH
    rate: float = RATE
    temperature: float | None = None
    seed: int = 0


def sized(batch: int, *, rate: float | None = None, seed: int = 0) -> Run:
    """Return a contrastive run of another batch, its rate by the root of the batch unless it is given."""
    chosen = RATE * math.sqrt(batch / BATCH) if rate is None else rate
    return Run(name=f"batch-{batch}" + ("" if rate is None else "-same-rate"), batch=batch, rate=chosen, seed=seed)


MAIN = tuple(Run(name=kind, kind=kind) for kind in ("contrastive", "supervised", "words"))
FIXED = tuple(Run(name=f"scale-{scale:g}", temperature=scale) for scale in (1 / 0.07, 100.0, 5.0))
RUNS = (
    sized(64), *MAIN, sized(128), sized(512), sized(1024), sized(2048), *FIXED,
    *(replace(run, name=f"{run.name}-seed-1", seed=1) for run in MAIN),
    sized(2048, rate=RATE), sized(64, rate=RATE), replace(MAIN[1], name="supervised-half-rate", rate=RATE / 2),
    *(replace(run, name=f"{run.name}-seed-2", seed=2) for run in MAIN),
)  # fmt: skip
SMOKE = tuple(replace(run, batch=16) for run in (*MAIN, FIXED[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all runs share.

    deadline: by `time.time`, after which no step is taken.   tests: pictures of each test, and no emoji
    but theirs; 0 for all."""

    data: Path
    config: Path
    out: Path
    device: str
    samples: int
    deadline: float
    tests: int = 0


class Learner(Protocol):
    """What a run trains, and how it answers."""

    module: nn.Module

    def loss(self, pixels: Tensor, emoji: Tensor) -> Tensor:
        """(B, 3, H, W) pixels and (B,) numbers of emoji to a scalar."""

    def scores(self, pixels: Tensor, candidates: Tensor, texts: int) -> Tensor:
        """(B, 3, H, W) pixels to (B, C) float32, higher for what is likelier. texts: of each label, the first so many."""


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pixels:
    """The pictures on a device, as they are or augmented, normalised as the model's config says."""

    def __init__(self, data: PackedEmoji, preprocess: Preprocess, device: torch.device, seed: int) -> None:
        self._pictures = torch.from_numpy(data.pictures).to(device)
        self._mean, self._std = (
            torch.tensor(of, device=device).view(1, 3, 1, 1) for of in (preprocess.mean, preprocess.std)
        )
        self.draw = torch.Generator(device).manual_seed(seed)

    def plain(self, rows: Tensor) -> Tensor:
        """(B,) numbers to (B, 3, 64, 64) float32."""
        return (self._levels(rows) - self._mean) / self._std

    def augmented(self, rows: Tensor) -> Tensor:
        """(B,) numbers to (B, 3, 64, 64): parts of the pictures, turned a little, in other colours, never mirrored."""
        return (recoloured(moved(self._levels(rows), self.draw), self.draw) - self._mean) / self._std

    def _levels(self, rows: Tensor) -> Tensor:
        return self._pictures[rows].permute(0, 3, 1, 2).float() / 255


def uniform(count: int, low: float, high: float, draw: torch.Generator) -> Tensor:
    return torch.rand(count, generator=draw, device=draw.device) * (high - low) + low


def moved(levels: Tensor, draw: torch.Generator) -> Tensor:
    """Return a random part of each picture, turned by up to `TURN` degrees; what lies outside is white."""
    count = len(levels)
    area = uniform(count, LEAST_AREA, 1.0, draw)
    aspect = uniform(count, -math.log(ASPECT), math.log(ASPECT), draw).exp()
    wide, high = (area * aspect).sqrt(), (area / aspect).sqrt()
    turn = uniform(count, -math.radians(TURN), math.radians(TURN), draw)
    across, down = (uniform(count, -1, 1, draw) * (1 - side).clamp(min=0) for side in (wide, high))
    cos, sin = turn.cos(), turn.sin()
    rows = torch.stack([cos * wide, -sin * high, across, sin * wide, cos * high, down], dim=1)
    grid = affine_grid(rows.view(count, 2, 3), list(levels.shape), align_corners=False)
    return 1 - grid_sample(1 - levels, grid, align_corners=False)


def recoloured(levels: Tensor, draw: torch.Generator) -> Tensor:
    """Return pictures with other brightness, contrast and saturation, each by up to `JITTER`."""
    bright, contrast, saturation = (
        uniform(len(levels), 1 - JITTER, 1 + JITTER, draw).view(-1, 1, 1, 1) for _ in range(3)
    )
    levels = (levels * bright).clamp(0, 1)
    middle = levels.mean(dim=(1, 2, 3), keepdim=True)
    levels = (middle + (levels - middle) * contrast).clamp(0, 1)
    grey = (levels * torch.tensor(_GREY, device=levels.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return (grey + (levels - grey) * saturation).clamp(0, 1)


# ── learners ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Contrastive:
    """Pictures and captions held against one another by clipcond's InfoNCE; equal captions belong together."""

    def __init__(self, model: Any, data: PackedEmoji, run: Run, device: torch.device, draw: torch.Generator) -> None:
        self.module = model.to(device)
        if run.temperature is not None:
            model.logit_scale.data.fill_(math.log(run.temperature))
            model.logit_scale.requires_grad_(False)
        self._captions = torch.from_numpy(data.captions).long().to(device)
        self._of = torch.from_numpy(data.captions_of).to(device)
        self._labels = torch.from_numpy(data.label_ids).long().to(device)
        self._draw, self._bf16 = draw, device.type == "cuda"

    def _text(self, ids: Tensor) -> Tensor:
        with self._cast():
            state, projection = text_state(self.module, ids, group=len(ids)), self.module.text_projection
            projected = projection(state) if isinstance(projection, nn.Module) else state @ projection
        return normalize(projected.float(), dim=-1)

    def _images(self, pixels: Tensor) -> Tensor:
        with self._cast():
            return image_features(self.module, pixels)

    def _cast(self) -> torch.autocast:
        return torch.autocast(self._captions.device.type, torch.bfloat16, enabled=self._bf16)

    def loss(self, pixels: Tensor, emoji: Tensor) -> Tensor:
        own = self._of[emoji]
        counts = (own >= 0).sum(dim=1)
        place = (torch.rand(len(own), generator=self._draw, device=own.device) * counts).long()
        drawn = own.gather(1, place[:, None])
        matches = Matches(images=own, texts=drawn.expand_as(own))
        images, texts = self._images(pixels), self._text(self._captions[drawn[:, 0]])
        return info_nce(images, texts, self.module.logit_scale, matches=matches, positives="count")

    def classes(self, candidates: Tensor, texts: int) -> Tensor:
        """(C, P) unit rows: the mean of a label's texts."""
        ids = self._labels[candidates, :texts].flatten(0, 1)
        vectors = torch.cat([self._text(part) for part in ids.split(_EVALUATED_AT_ONCE)])
        return normalize(vectors.view(len(candidates), texts, -1).mean(dim=1), dim=-1)

    def scores(self, pixels: Tensor, candidates: Tensor, texts: int) -> Tensor:
        return self._images(pixels) @ self.classes(candidates, texts).T


class Headed:
    """An image tower with a linear layer over its output."""

    def __init__(self, visual: nn.Module, outputs: int, device: torch.device) -> None:
        self.module = nn.ModuleDict({"visual": visual, "head": nn.Linear(_width(visual), outputs)}).to(device)
        self._bf16 = device.type == "cuda"

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, outputs) float32."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self._bf16):
            found: Tensor = self.module["head"](self.module["visual"](pixels))
        return found.float()


@torch.no_grad()
def _width(visual: nn.Module) -> int:
    """Return P, the length of what an image tower gives."""
    return int(visual.eval()(_blank(visual)).shape[1])


def _blank(visual: Any) -> Tensor:
    """(1, 3, H, W) zeros of the size that an image tower reads."""
    size = visual.image_size
    return torch.zeros(1, 3, *((size, size) if isinstance(size, int) else size))


class Supervised(Headed):
    """A class for each emoji that some picture of `train` shows."""

    def __init__(self, model: Any, data: PackedEmoji, device: torch.device) -> None:
        super().__init__(model.visual, len(data.known), device)
        self._place = torch.full((len(data.codes),), -1, device=device)
        self._place[torch.from_numpy(data.known).to(device)] = torch.arange(len(data.known), device=device)

    def loss(self, pixels: Tensor, emoji: Tensor) -> Tensor:
        return cross_entropy(self.logits(pixels), self._place[emoji])

    def scores(self, pixels: Tensor, candidates: Tensor, texts: int) -> Tensor:
        return self.logits(pixels)[:, self._place[candidates]]


class Words(Headed):
    """The words of a caption, each the same share of a distribution over all words. (Joulin et al. 2016.)

    A label's score is minus the divergence of the prediction from the label's words.
    """

    def __init__(self, model: Any, data: PackedEmoji, device: torch.device, draw: torch.Generator) -> None:
        known = sorted({word for caption in data.words for word in words_of(caption)})
        super().__init__(model.visual, len(known), device)
        self._bags = bags(data.words, known).to(device)
        self._labels = bags(data.labels, known).to(device)
        self._of = torch.from_numpy(data.captions_of).to(device)
        self._draw = draw

    def loss(self, pixels: Tensor, emoji: Tensor) -> Tensor:
        own = self._of[emoji]
        place = (torch.rand(len(own), generator=self._draw, device=own.device) * (own >= 0).sum(dim=1)).long()
        return cross_entropy(self.logits(pixels), self._bags[own.gather(1, place[:, None])[:, 0]])

    def scores(self, pixels: Tensor, candidates: Tensor, texts: int) -> Tensor:
        return divergence_scores(log_softmax(self.logits(pixels), dim=1), self._labels[candidates])


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[\w’']+", text.lower())


def bags(texts: Sequence[str], known: Sequence[str]) -> Tensor:
    """(N, V) float32: each word of a text that is known an equal share of 1; zeros where none is."""
    places = {word: place for place, word in enumerate(known)}
    found = torch.zeros(len(texts), len(known))
    for row, text in zip(found, texts, strict=True):
        row[[places[word] for word in words_of(text) if word in places]] = 1
    return found / found.sum(dim=1, keepdim=True).clamp(min=1)


def divergence_scores(log_shares: Tensor, wanted: Tensor) -> Tensor:
    """(B, V) logs of predicted shares and (C, V) wanted ones to (B, C): minus the divergence; −∞ for nothing wanted."""
    entropy = torch.special.entr(wanted).sum(dim=1)
    found = log_shares @ wanted.T + entropy
    return found.masked_fill(wanted.sum(dim=1) == 0, -torch.inf)


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_model(path: Path, seed: int) -> tuple[Any, dict[str, Any], Preprocess]:
    """Return the model that a config (a file, or a folder with `open_clip_config.json`) describes, weights random."""
    file = path / "open_clip_config.json" if path.is_dir() else path
    config = json.loads(file.read_text(encoding="utf-8"))
    described = config.get("model_cfg", config)
    torch.manual_seed(seed)
    with buildable(str(path), described) as ready:
        model = builder(ready)()
    size = described["vision_cfg"].get("image_size", 64)
    preprocess = {"mean": (0.5,) * 3, "std": (0.5,) * 3, **config.get("preprocess_cfg", {}), "size": size}
    return model, described, Preprocess.from_open_clip(preprocess)


def flops(model: Any, kind: str, positions: int) -> int:
    """Return the operations of one forward pass of one picture, with its caption where the run reads it."""
    counter = FlopCounterMode(display=False)
    model.eval()
    with torch.no_grad(), counter:
        model.visual(_blank(model.visual))
        if kind == "contrastive":
            ids = torch.zeros(1, positions, dtype=torch.long)
            ids[:, -1] = EOS
            text_state(model, ids)
    return int(counter.get_total_flops())


def learner(run: Run, model: Any, data: PackedEmoji, device: torch.device, draw: torch.Generator) -> Learner:
    if run.kind == "supervised":
        return Supervised(model, data, device)
    if run.kind == "words":
        return Words(model, data, device, draw)
    return Contrastive(model, data, run, device, draw)


def optimizer(module: Any) -> torch.optim.Optimizer:
    """AdamW with decay on matrices alone, the token table's rows among what does not decay."""
    if hasattr(module, "token_embedding"):
        matrices, rest = split_by_decay(module)
        rest = [*rest, module.token_embedding.weight]
    else:
        matrices = [each for each in module.parameters() if each.ndim > 1]
        rest = [each for each in module.parameters() if each.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=1e-8, fused=True)


def orders(rows: np.ndarray, batch: int, device: torch.device, seed: int) -> Iterator[Tensor]:
    """Yield batches of numbers without end, every picture once before any comes again."""
    draw, left = np.random.default_rng(seed), np.empty(0, np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, draw.permutation(rows)])
        yield torch.from_numpy(left[:batch]).to(device, non_blocking=True)
        left = left[batch:]


class Evaluation:
    """The tests of a run: the place of the right label among all, for each picture."""

    def __init__(self, data: PackedEmoji, pixels: Pixels, device: torch.device, most: int) -> None:
        self._pixels = pixels
        self._tests = {}
        for name in TESTS:
            rows, candidates = data.rows(name), data.candidates(name)
            if most:
                rows = rows[:most]
                candidates = np.unique(data.emoji[rows])
            right = np.searchsorted(candidates, data.emoji[rows])
            self._tests[name] = [torch.from_numpy(each).to(device) for each in (rows, candidates, right)]

    @torch.inference_mode()
    def ranks(self, of: Learner, test: str, texts: int = 1) -> list[int]:
        """Return for each picture of a test how many labels come before the right one; ties count against it."""
        of.module.eval()
        rows, candidates, right = self._tests[test]
        found = []
        for part, own in zip(rows.split(_EVALUATED_AT_ONCE), right.split(_EVALUATED_AT_ONCE), strict=True):
            scores = of.scores(self._pixels.plain(part), candidates, texts)
            found.append((scores >= scores.gather(1, own[:, None])).sum(dim=1) - 1)
        of.module.train()
        return torch.cat(found).tolist()

    def accuracies(self, of: Learner) -> dict[str, float]:
        """Return the share of right first answers on the tests that a class for each emoji can answer."""
        return {test: float(np.mean(np.array(self.ranks(of, test)) == 0)) for test in TESTS if test != "unseen_emoji"}


def train(run: Run, settings: Settings, data: PackedEmoji) -> dict[str, Any]:
    """Train one run and return all that is to be known of it; `complete` is False where the deadline came first."""
    device = torch.device(settings.device)
    torch.set_float32_matmul_precision("high")
    model, config, preprocess = read_model(settings.config, run.seed)
    positions = data.captions.shape[1]
    costs = {kind: flops(model, kind, positions) for kind in ("contrastive", run.kind)}
    samples = settings.samples * (costs["contrastive"] / costs[run.kind] if run.kind == "words" else 1)  # equal compute
    steps = max(1, round(samples / run.batch))
    pixels = Pixels(data, preprocess, device, run.seed)
    of = learner(run, model, data, device, pixels.draw)
    evaluation = Evaluation(data, pixels, device, settings.tests)
    since = time.time()
    done, checkpoints, losses = _steps(run, steps, of, pixels, data, evaluation, settings.deadline)
    result = {
        "run": asdict(run), "complete": done == steps, "samples": done * run.batch, "steps": done,
        "seconds": round(time.time() - since, 1), "flops": costs[run.kind], "device": _name(device),
        "torch": torch.__version__, "model_cfg": config, "checkpoints": checkpoints, "losses": losses,
        "pictures": len(data.rows("train")), "classes": len(data.known),
    }  # fmt: skip
    if run.kind == "contrastive":
        result["scale"] = round(model.logit_scale.exp().item(), 3)
        result["ranks_of_ensemble"] = {test: evaluation.ranks(of, test, texts=len(TEMPLATES)) for test in TESTS}
    answered = [test for test in TESTS if run.kind != "supervised" or test != "unseen_emoji"]
    return result | {"ranks": {test: evaluation.ranks(of, test) for test in answered}}


def _steps(
    run: Run, steps: int, of: Learner, pixels: Pixels, data: PackedEmoji, evaluation: Evaluation, deadline: float
) -> tuple[int, list[dict[str, Any]], list[float]]:
    """Take the steps; return how many were taken, what was measured on the way, and losses now and then."""
    of.module.train()
    adam, emoji = optimizer(of.module), torch.from_numpy(data.emoji).long().to(pixels.draw.device)
    marks = {max(1, round(share * steps)) for share in CHECKPOINTS}
    warmup = max(1, steps // 20)
    checkpoints, losses = [], []
    batches = orders(data.rows("train"), run.batch, pixels.draw.device, run.seed)
    for step, rows in zip(range(steps), batches, strict=False):
        for group in adam.param_groups:
            group["lr"] = learning_rate_at(step, steps, run.rate, warmup)
        adam.zero_grad(set_to_none=True)
        loss = of.loss(pixels.augmented(rows), emoji[rows])
        loss.backward()
        clip_gradients([each.grad for each in of.module.parameters() if each.grad is not None], CLIP)
        adam.step()
        if isinstance(of, Contrastive):
            clamp_logit_scale(of.module.logit_scale)
        if step + 1 in marks:
            losses.append(round(loss.item(), 4))
            checkpoints.append({"samples": (step + 1) * run.batch, **evaluation.accuracies(of)})
        if time.time() > deadline:
            return step + 1, checkpoints, losses
    return steps, checkpoints, losses


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


# ── all runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


_shared: dict[str, PackedEmoji] = {}


def _begin(path: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    _shared["data"] = PackedEmoji.read(path)


def _one(run: Run, settings: Settings) -> str:
    """Train a run and write its JSON; return a line about it."""
    if time.time() > settings.deadline:
        return f"{run.name}: not begun, the time is up"
    result = train(run, settings, _shared["data"])
    write_file(settings.out / f"{run.name}.json", json.dumps(result) + "\n", overwrite=True)
    last = result["checkpoints"][-1] if result["checkpoints"] else {}
    told = ", ".join(f"{name} {share:.1%}" for name, share in last.items() if name != "samples")
    state = "" if result["complete"] else f", stopped by the budget at step {result['steps']}"
    return f"{run.name}: {result['samples']:,} samples in {result['seconds']:.0f} s{state}; {told}"


def train_all(runs: Sequence[Run], settings: Settings, jobs: int) -> None:
    """Train the runs that have no complete file yet, `jobs` at a time, the first ones first."""
    settings.out.mkdir(parents=True, exist_ok=True)
    missing = [run for run in runs if not _complete(settings.out / f"{run.name}.json")]
    for run in runs:
        if run not in missing:
            print(f"{run.name}: there already", flush=True)
    if jobs == 1:
        _begin(settings.data, torch.get_num_threads())
        for run in missing:
            print(_one(run, settings), flush=True)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_begin, initargs=(settings.data, 1)) as pool:
        for done in as_completed([pool.submit(_one, run, settings) for run in missing]):
            print(done.result(), flush=True)


def _complete(path: Path) -> bool:
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8"))["complete"])
