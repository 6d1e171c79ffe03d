"""Every pipeline class of diffusers that reads CLIP's text encoder: accepted, in which shape, or why not; and its proofs.

Classes are read from diffusers' source, not imported: their annotations say which components they hold, their call which
arguments it takes, and `clipcond.diffusion.pipeline_shapes` what that makes of them. Those that are taken are then built
with tiny random parts (`tests/diffusion/tiny_pipelines`) and run: some two minutes on one core.

    python benchmarks/pipelines.py                                 # the table
    python benchmarks/pipelines.py --only FluxPipeline             # the rows of some classes
    python benchmarks/pipelines.py --write docs/pipelines.md
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

from clipcond.diffusion.pipeline_shapes import SHAPES, lacking, shape_of
from clipcond.errors import ModelError
from clipcond.files import write_file

_BEGIN, _END = "<!-- pipelines: begin -->", "<!-- pipelines: end -->"
# the columns of proofs, by the name of the proof in tests/diffusion/tiny_pipelines/proofs.py
COLUMNS = {
    "text": "text",
    "picture": "picture",
    "long": "long",
    "weights": "weights",
    "negative": "negative",
    "images": "two",
    "offload": "offload",
}
CLOSE = 1e-5
WORDS = ("call", "each", "nor own")  # in place of a number; the guide says what they mean
EFFECTS = ("weights", "negative")
_READS = re.compile(r"\bCLIPText\w*|\bT5\w*|\bLlama\w*|\bLlava\w*|\bQwen\w*|\bMultilingualCLIP\b|\bContextCLIP\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineClass:
    """A class of pipelines as its source describes it. parts: a stand-in for each component, of the class it is of."""

    name: str
    deprecated: bool
    parts: Mapping[str, Any]
    takes: tuple[str, ...]
    takes_back: str  # the tensors that its loop takes back from a callback, as its source lists them

    @property
    def shape(self) -> str:
        """Its shape. Raises ModelError, saying why, for a class that the Conditioner does not take."""
        found = shape_of(self.name, self.parts, self.takes)
        if missing := lacking(SHAPES[found], self.takes):
            raise ModelError(f"its call takes no {missing}")
        for slot in SHAPES[found].slots.values():
            kind = type(self.parts.get(slot.module)).__name__
            if slot.module not in self.parts or slot.tokenizer not in self.parts:
                raise ModelError(f"has no {slot.tokenizer if slot.module in self.parts else slot.module}")
            if not kind.startswith(("CLIPText", "T5Encoder")):
                raise ModelError(f"its {slot.module} is a {kind}")
        return found


def classes() -> list[PipelineClass]:
    """Return the classes of the installed diffusers that hold a CLIP text encoder, by name."""
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    files = [*(root / "pipelines").rglob("*.py"), *(root / "modular_pipelines").rglob("*.py")]
    return sorted((each for file in files for each in _classes_of(file, root)), key=lambda each: each.name)


def _classes_of(file: Path, root: Path) -> Iterator[PipelineClass]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or "Pipeline" not in node.name:
            continue
        methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
        if "__init__" not in methods or "__call__" not in methods:
            continue
        parts = dict(_parts(methods["__init__"].args))
        if any("CLIPText" in type(part).__name__ for part in parts.values()):
            yield PipelineClass(
                name=node.name,
                deprecated="deprecated" in file.relative_to(root).parts
                or any("Deprecated" in ast.unparse(base) for base in node.bases),
                parts=parts,
                takes=tuple(each.arg for each in _arguments(methods["__call__"].args)),
                takes_back=next(
                    (
                        ast.unparse(each.value)
                        for each in node.body
                        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "_callback_tensor_inputs"
                    ),
                    "",
                ),
            )


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.args, *arguments.kwonlyargs]


def _parts(arguments: ast.arguments) -> Iterator[tuple[str, Any]]:
    """Yield the components: of text encoders an object of a class of that name, of others any object."""
    for each in _arguments(arguments):
        said = ast.unparse(each.annotation) if each.annotation else ""
        found = _READS.search(said) if "text_encoder" in each.arg else None
        yield each.arg, type(found.group() if found else "Component", (), {})()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table. shape: of the class, or the name of its variant; empty where the class is not taken."""

    name: str
    deprecated: bool
    shape: str
    reason: str = ""
    schedules: str = ""
    proofs: Mapping[str, float | str | None] = field(default_factory=dict)  # by column; the reason where one failed


def row(each: PipelineClass) -> Row:
    """Return the row of a class, not measured."""
    try:
        shape = SHAPES[name := each.shape]
    except ModelError as error:
        reason = str(error).split("; supported are")[0].replace(each.name, "it").removeprefix("it ")
        return Row(name=each.name, deprecated=each.deprecated, shape="", reason=reason)
    states = shape.arguments.get("prompt_embeds", "prompt_embeds")
    reached = "callback_on_step_end" in each.takes and f"'{states}'" in each.takes_back
    schedules = "yes" if reached and not shape.fixed else "no"
    return Row(name=each.name, deprecated=each.deprecated, shape=name, schedules=schedules)


def measured_rows(rows: list[Row]) -> list[Row]:
    """Return rows with their proofs, and those of the variants of their classes."""
    from tiny_pipelines.assemble import VARIANTS

    variants = [
        (replace(each, shape=variant), parts)
        for variant, (name, _, parts) in VARIANTS.items()
        for each in rows
        if each.name == name
    ]
    return [_measured(each, each.shape, {}) for each in rows] + [
        _measured(each, VARIANTS[each.shape][1], parts) for each, parts in variants
    ]


def _measured(each: Row, family: str, parts: Mapping[str, Any]) -> Row:
    from tiny_pipelines.assemble import NotBuilt, build
    from tiny_pipelines.proofs import measured

    if not each.shape:
        return each
    print(f"{each.name} ({each.shape})", file=sys.stderr, flush=True)
    try:
        pipe = build(each.name, family, parts)
    except NotBuilt as error:
        return replace(each, reason=f"not built: {error}")
    return replace(each, proofs=measured(pipe))


def cell(column: str, value: float | str | None, notes: dict[str, int]) -> str:
    """Return a proof as it stands in the table, on one line. notes: the reasons so far by their numbers; a new one is added."""
    return _words(column, value, notes).replace("-", "\N{NON-BREAKING HYPHEN}").replace(" ", "\N{NO-BREAK SPACE}")


def _words(column: str, value: float | str | None, notes: dict[str, int]) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value if value in WORDS else f"fails ({notes.setdefault(value, len(notes) + 1)})"
    if column == "long":
        return str(int(value))
    if column in EFFECTS:
        share = f"{float(f'{100 * value:.1g}'):g}%" if value >= 1e-4 else "<0.01%"
        return share if value else "none"
    return f"{value:.0e}".replace("e-0", "e-") if value else "0"


def table(rows: list[Row], seconds: float) -> str:
    """Return the tables of Markdown: the classes that are taken by shape with their proofs, and the others with the reason."""
    taken, notes = [each for each in rows if each.shape], dict[str, int]()
    lines = [summary(rows, seconds), "", f"| class | shape | {' | '.join(COLUMNS.values())} | schedules |"]
    lines += ["|---|---|" + "---:|" * len(COLUMNS) + "---|"]
    order = list(SHAPES)
    for each in sorted(taken, key=lambda each: (order.index(each.shape.split()[0]), each.shape)):
        cells = [cell(column, each.proofs[column], notes) if each.proofs else "not built" for column in COLUMNS]
        lines.append(
            f"| `{each.name}`{' †' * each.deprecated} | {each.shape} | {' | '.join(cells)} | {each.schedules} |"
        )
    lines += ["", *(f"{number}. `{reason.replace('`', '')}`" for reason, number in notes.items())]
    lines += [f"- `{each.name}`: {each.reason}" for each in taken if each.reason]
    lines += ["", "| not taken | because |", "|---|---|"]
    lines += [f"| `{each.name}`{' †' * each.deprecated} | {each.reason} |" for each in rows if not each.shape]
    return "\n".join(lines)


def summary(rows: list[Row], seconds: float) -> str:
    """Return what the tables come to, with date, versions and command."""
    taken = {each.name for each in rows if each.shape}
    built = [each for each in rows if each.proofs]
    drawn = [each for each in built if isinstance(each.proofs["picture"], float)]
    close = [each for each in drawn if all(_close(each.proofs[column]) for column in ("text", "picture"))]
    versions = ", ".join(f"{name} {version(name)}" for name in ("diffusers", "transformers", "torch", "accelerate"))
    return (
        f"{len(taken)} of the {len({each.name for each in rows})} classes of diffusers that read CLIP's text encoder are taken. "
        f"With variants of other parts these are {len([each for each in rows if each.shape])} rows: {len(built)} were built, "
        f"{len(drawn)} drew with clipcond's text, and {len(close)} drew then what they draw with words, to {CLOSE:.0e}. "
        f"{date.today()}, {versions}, `python benchmarks/pipelines.py --write docs/pipelines.md`, {seconds:.0f} s of one core."
    ).replace("e-0", "e-")


def _close(value: float | str | None) -> bool:
    return isinstance(value, float) and value <= CLOSE


def _quiet() -> None:
    from clipcond.runtime.torchvision_repair import repair

    repair()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "diffusion"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", type=Path, help="put the tables into this guide")
    options.add_argument("--only", nargs="+", metavar="CLASS", help="measure these classes alone; not with --write")
    given = options.parse_args()
    if given.write and given.only:
        options.error("--only measures a part of the table; leave out --write")
    rows = [row(each) for each in classes() if not given.only or each.name in given.only]
    if not rows:
        options.error(f"no class of diffusers that reads CLIP is named {' or '.join(given.only)}")
    _quiet()
    started = process_time()
    made = table(measured_rows(rows), process_time() - started)
    if given.write is None:
        print(made)
        return
    before, rest = given.write.read_text(encoding="utf-8").split(_BEGIN)
    write_file(given.write, f"{before}{_BEGIN}\n{made}\n{_END}{rest.split(_END)[1]}".encode(), overwrite=True)


if __name__ == "__main__":
    main()
