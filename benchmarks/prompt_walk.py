"""Count the modules that a prompt goes through on its way from `Conditioner.from_pipeline(pipe)` to `pipe(**kwargs)`.

A module counts as entered when one of its own functions runs between the two calls: `Conditioner.from_pipeline(pipe)`,
then `conditioner(prompt)`, then `.kwargs`. Methods, properties and comprehensions count; constructors that `dataclass`
generates do not, since nobody reads them. A change is a call or a return that goes from one module of clipcond to another,
whatever functions of other packages run in between. Rooms are the folders of clipcond.

A first walk of another prompt, with weights, is not counted: it imports modules, builds the tokenizer's tables and fills
its memory of words. The pipeline's own call, and torch, transformers and diffusers below clipcond, are not looked at.
With `--modules` the modules are listed in the order in which they are first entered, with the calls into each.

    python benchmarks/prompt_walk.py [--pipeline mini] [--modules]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import clipcond

ROOT = Path(clipcond.__file__).parent
WALKS = {"plain": ("a red fox", "plain"), "weighted": ("a (red:1.3) fox", "a1111")}
WARM_UP = ("a (warm:1.2) bath", "a1111")
AIM = {"plain": 22, "weighted": 28}


@dataclass
class Walk:
    """The modules of clipcond that functions ran in, with the number of calls, and the changes of module and of room."""

    calls: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    room_changes: int = 0

    @property
    def modules(self) -> tuple[str, ...]:
        """In the order of the first call."""
        return tuple(self.calls)


class _Tracer:
    """A profile function: follows the calls and returns of clipcond's functions."""

    def __init__(self) -> None:
        self.walk = Walk()
        self._stack: list[str] = []
        self._names: dict[str, str | None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "return"):
            return
        module = self._module_of(frame.f_code.co_filename)
        if module is None or frame.f_code.co_name == "<module>":
            return
        if event == "call":
            self.walk.calls[module] += 1
            self._step(self._stack[-1] if self._stack else None, module)
            self._stack.append(module)
        elif self._stack:  # a generator may return after the walk's frame that resumed it
            self._stack.pop()
            self._step(module, self._stack[-1] if self._stack else None)

    def _step(self, before: str | None, after: str | None) -> None:
        if before is None or after is None or before == after:
            return
        self.walk.changes += 1
        self.walk.room_changes += before.partition(".")[0] != after.partition(".")[0]

    def _module_of(self, file: str) -> str | None:
        """`diffusion.planner` for a file of clipcond, None for any other."""
        if file not in self._names:
            path = Path(file)
            inside = path.is_relative_to(ROOT)
            self._names[file] = ".".join(path.relative_to(ROOT).with_suffix("").parts) if inside else None
        return self._names[file]


@contextmanager
def tracing() -> Iterator[Walk]:
    """Follow what runs in the block."""
    tracer = _Tracer()
    sys.setprofile(tracer)
    try:
        yield tracer.walk
    finally:
        sys.setprofile(None)


def walk(pipe: Any, prompt: str, dialect: str) -> Walk:
    """Condition one prompt from a new Conditioner and return the way that it took."""
    from clipcond.diffusion.conditioner import Conditioner

    with tracing() as found:
        conditioner = Conditioner.from_pipeline(pipe)
        _ = conditioner(prompt, dialect=dialect).kwargs
    return found


def walks(pipe: Any) -> dict[str, Walk]:
    """The walks of the plain and of the weighted prompt, after one that is not counted."""
    walk(pipe, *WARM_UP)
    return {name: walk(pipe, *given) for name, given in WALKS.items()}


def report(found: dict[str, Walk], say: Callable[[str], None] = print) -> None:
    """The numbers as a table."""
    say("| prompt | modules | aim | changes of module | changes of room | calls |")
    say("|---|---|---|---|---|---|")
    for name, each in found.items():
        numbers = f"{len(each.calls)} | ≤ {AIM[name]} | {each.changes} | {each.room_changes} | {each.calls.total()}"
        say(f"| {name}: `{WALKS[name][0]}` | {numbers} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pipeline", default="mini", help="mini, a diffusers folder or a hub id")
    options.add_argument("--modules", action="store_true", help="list the modules too")
    chosen = options.parse_args()
    found = walks(clipcond.load_pipeline(chosen.pipeline))
    report(found)
    if chosen.modules:
        for name, each in found.items():
            print(f"\n{name}: " + ", ".join(f"{module} ({calls})" for module, calls in each.calls.items()))


if __name__ == "__main__":
    main()
