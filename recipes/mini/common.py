"""What the recipes share: scenes from a seed, resumable checkpoints, an averaged copy of the weights, a log of JSON lines."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clipcond.mini import world

HELD_OUT_SEED = "held out"  # scenes drawn from this seed are for measuring only


def scenes(
    seed: int | str, step: int, count: int, *, least: int = 1, most: int = 9
) -> tuple[list[world.Scene], random.Random]:
    """The scenes of one training step and the generator that drew them: a pure function of (seed, step)."""
    rng = random.Random(f"{seed}/{step}")
    return [world.sample(rng, least=least, most=most) for _ in range(count)], rng


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """(N, 3, 64, 64) float32 in [-1, 1]."""
    array = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


class Average:
    """An exponential moving average of a model's parameters, with a warm-up of its decay."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.999) -> None:
        self.decay, self.steps = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        names = list(self.weights)
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_([self.weights[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.weights = state["steps"], state["weights"]

    @torch.no_grad()
    def copy_to(self, model: torch.nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(self.weights[name])


class Run:
    """A folder with `state.pt` and `log.jsonl`: training goes on from the last checkpoint whenever it is started again."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.folder, self.parts, self.step = folder, parts, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._state = folder / "state.pt"
        if self._state.exists():
            saved = torch.load(self._state, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            self.step = saved["step"]
            torch.set_rng_state(saved["rng"])
            print(f"resumed {folder} at step {self.step}", flush=True)

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        temporary = self._state.with_suffix(".tmp")
        torch.save({**state, "step": self.step, "rng": torch.get_rng_state()}, temporary)
        temporary.replace(self._state)

    def log(self, **values: Any) -> None:
        line = json.dumps({"step": self.step, "time": round(time.time(), 1), **values})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def steps(self, total: int, *, save_every: int = 500) -> Iterator[int]:
        """The steps that are left; saves every `save_every` steps and at the end."""
        while self.step < total:
            yield self.step
            self.step += 1
            if self.step % save_every == 0 or self.step == total:
                self.save()


def warmup_cosine(step: int, total: int, peak: float, warmup: int = 200, floor: float = 0.02) -> float:
    """The learning rate of a step: linear to `peak`, then a half cosine down to `floor` of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * share))))
