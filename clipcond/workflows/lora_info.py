"""What a LoRA file does, told from its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ModelError, ResourceMissing

if TYPE_CHECKING:
    from clipcond.models.lora_outline import LoraOutline


@dataclass(frozen=True, slots=True)
class LoraInfoOptions:
    """A `.safetensors` file."""

    file: Path


@dataclass(frozen=True, slots=True)
class LoraInfo:
    """A file and its outline."""

    file: Path
    outline: LoraOutline

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond lora-info --json`."""
        outline = self.outline
        return {
            "path": str(self.file),
            "family": outline.family,
            "stated": outline.stated,
            "parts": {
                name: {
                    "modules": part.modules, "kinds": dict(part.kinds),
                    "ranks": {str(rank): count for rank, count in part.ranks.items()},
                    "scales": None if part.scales is None else list(part.scales),
                    "weights": part.weights, "encoder": part.encoder,
                }
                for name, part in outline.parts.items()
            },
            "ignored": [
                {"reason": each.reason, "keys": each.keys, "example": each.example} for each in outline.ignored
            ],
            "embeddings": list(outline.embeddings),
        }  # fmt: skip


def run(options: LoraInfoOptions) -> LoraInfo:
    """Read the outline of a file. Raises ResourceMissing, and ModelError for a file that is no safetensors."""
    if not options.file.is_file():
        raise ResourceMissing(f"there is no file {options.file}")
    if options.file.suffix != ".safetensors":
        raise ModelError(
            f"{options.file} is no .safetensors file; a pickled one does not say what it holds before it is read: convert it"
        )
    from clipcond.models.lora_outline import outline_lora

    return LoraInfo(options.file, outline_lora(options.file))
