"""Every pipeline class of diffusers that reads CLIP's text encoder: accepted, in which shape, or why not.

Classes are read from diffusers' source, not imported: their annotations say which components they hold, their call which
arguments it takes, and `clipcond.diffusion.pipeline_shapes` what that makes of them.

    python benchmarks/pipelines.py                          # the table
    python benchmarks/pipelines.py --write docs/pipelines.md
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipcond.condition.families import LAYOUTS
from clipcond.diffusion.pipeline_shapes import SHAPES, lacking, shape_of
from clipcond.errors import ModelError
from clipcond.files import write_file

_BEGIN, _END = "<!-- pipelines: begin -->", "<!-- pipelines: end -->"
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
            if not kind.startswith(("CLIPText", "T5Encoder")):
                raise ModelError(f"its {slot.module} is a {kind}" if slot.module in self.parts else f"no {slot.module}")
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


def row(each: PipelineClass) -> tuple[str, ...]:
    """Return the cells of a class."""
    try:
        shape = SHAPES[name := each.shape]
    except ModelError as error:
        reason = str(error).split("; supported are")[0].replace(each.name, "it").removeprefix("it ")
        return f"`{each.name}`", "no", reason, "", "", ""
    layout = LAYOUTS[shape.layout]
    negative = shape.arguments.get("negative_prompt_embeds", "negative_prompt_embeds") in each.takes
    weights = "yes" if layout.concat_width or layout.append_tokens else "no"
    states = shape.arguments.get("prompt_embeds", "prompt_embeds")
    reached = "callback_on_step_end" in each.takes and f"'{states}'" in each.takes_back
    schedules = "yes" if reached and not shape.fixed else "no"
    return f"`{each.name}`", name, "", weights, "yes" if negative else "no", schedules


def table(found: list[PipelineClass]) -> str:
    """Return the tables of Markdown: the classes that are taken by shape, and the others with the reason."""
    rows = [(row(each), each) for each in found]
    taken = [(cells, each) for cells, each in rows if cells[1] != "no"]
    counts = Counter(cells[1] for cells, _ in taken)
    lines = [
        f"{len(taken)} of the {len(found)} classes of diffusers {version('diffusers')} that read CLIP's text encoder "
        f"({date.today()}, `python benchmarks/pipelines.py`).",
        "",
        "| class | shape | weights | negative side | schedules |",
        "|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        lines += [
            f"| {cells[0]}{' (deprecated)' * each.deprecated} | {shape} | {cells[3]} | {cells[4]} | {cells[5]} |"
            for cells, each in taken
            if cells[1] == shape
        ]
    lines += ["", "| not taken | because |", "|---|---|"]
    lines += [
        f"| {cells[0]}{' (deprecated)' * each.deprecated} | {cells[2]} |" for cells, each in rows if cells[1] == "no"
    ]
    said = ", ".join(f"{count} {shape}" for shape, count in counts.most_common())
    return "\n".join([*lines, "", f"By shape: {said}."])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", type=Path, help="put the tables into this guide")
    given = options.parse_args()
    made = table(classes())
    if given.write is None:
        print(made)
        return
    before, rest = given.write.read_text(encoding="utf-8").split(_BEGIN)
    write_file(given.write, f"{before}{_BEGIN}\n{made}\n{_END}{rest.split(_END)[1]}".encode(), overwrite=True)


if __name__ == "__main__":
    main()
