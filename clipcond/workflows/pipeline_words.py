"""A pipeline's family and the words that its text encoders have never seen, from its files alone: nothing is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ModelError

if TYPE_CHECKING:
    from clipcond.models.token_table import TokenTables
    from clipcond.prompt.plan import PromptPlan

_ENCODERS = {"sd15": 1, "sd2": 1, "sdxl": 2, "sd3": 2, "flux": 1}  # CLIP text encoders of a family
_SD2_WIDTH = 1024


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PipelineWords:
    """A pipeline by name, its family, and its encoders' token tables."""

    name: str
    family: str
    tables: TokenTables

    def unseen(self, plan: PromptPlan) -> tuple[str, ...]:
        """The words of a prompt that none of the pipeline's CLIP encoders has ever seen, each once."""
        from clipcond.encode.unseen_words import unseen_words

        encoder = next(iter(plan.encoders.values()))
        return unseen_words(self.tables, [token for chunk in encoder.chunks for token in chunk.tokens])


def read_pipeline_words(spec: str) -> PipelineWords:
    """Look at `mini` or a diffusers folder. Raises ModelError for what is neither, and for a family that is not known here."""
    from clipcond.diffusion.pipeline_names import find_pipeline
    from clipcond.models.token_table import TokenTables

    folder = Path(find_pipeline(spec))
    if not folder.is_dir():
        raise ModelError(f"{spec} is a hub id; --pipeline of tokens takes mini, or the folder of a diffusers pipeline")
    family = _family(spec, folder)
    parts = [folder / name for name in ("text_encoder", "text_encoder_2")[: _ENCODERS[family]]]
    return PipelineWords(name=spec, family=family, tables=TokenTables(parts))


def _family(spec: str, folder: Path) -> str:
    name = str(_document(folder / "model_index.json").get("_class_name", ""))
    for part, family in (("StableDiffusionXL", "sdxl"), ("StableDiffusion3", "sd3"), ("Flux", "flux")):
        if part in name:
            return family
    if "StableDiffusion" in name:
        width = _document(folder / "text_encoder" / "config.json").get("hidden_size")
        return "sd2" if width == _SD2_WIDTH else "sd15"
    raise ModelError(f"{spec} is a {name or 'pipeline of no name'}; tokens knows the families {', '.join(_ENCODERS)}")


def _document(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON; expected a pipeline as diffusers saves it") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no object; expected a pipeline as diffusers saves it")
    return found
