"""`clipcond lora-info`: parts of a pipeline that a LoRA touches, and keys that a loader would ignore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.render import print_json, stdout_console
from clipcond.wording import visible
from clipcond.workflows.lora_info import LoraInfoOptions, run

if TYPE_CHECKING:
    from clipcond.models.lora_outline import PartOutline
    from clipcond.workflows.lora_info import LoraInfo


@command
def lora_info(
    file: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what of a LoRA acts, and what a loader would ignore.

    Its layers are listed by the text encoder or denoiser that they change.
    Only the header is read: nothing of the file is run, and it may be of any size.
    """
    info = run(LoraInfoOptions(file))
    if as_json:
        print_json(info.to_json())
    else:
        _show(info)


def _show(info: LoraInfo) -> None:
    console, outline = stdout_console(), info.outline
    stated = f"; its metadata says {visible(outline.stated)}" if outline.stated else ""
    console.print(f"base by shapes: {outline.family or 'unknown'}{stated}", soft_wrap=True)
    for name, part in outline.parts.items():
        console.print(f"{name}{f' ({part.encoder})' if part.encoder else ''}: {_described(part)}", soft_wrap=True)
    if not any(name.startswith("text_encoder") for name in outline.parts):
        console.print("touches no text encoder")
    if outline.embeddings:
        console.print(f"textual inversions: {visible(', '.join(outline.embeddings[:20]))}", soft_wrap=True)
    for each in outline.ignored:
        console.print(
            f"ignored: {each.keys} keys, {each.reason}, such as {visible(each.example[:120])}", soft_wrap=True
        )


def _described(part: PartOutline) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in part.kinds.items())
    ranks = ", ".join(map(str, part.ranks)) or "unknown"
    scale = "alpha not stored" if part.scales is None else f"alpha/rank {part.scales[0]:g}"
    if part.scales is not None and part.scales[0] != part.scales[1]:
        scale += f" to {part.scales[1]:g}"
    return f"{part.modules} layers ({kinds}), rank {ranks}, {scale}, {part.weights:,} weights"
