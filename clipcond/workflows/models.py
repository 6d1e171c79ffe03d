"""The models that can be loaded by their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipcond.models.catalogue import Model


@dataclass(frozen=True, slots=True)
class ModelsOptions:
    """contains: list names with this in them, whatever its case.   everything: also what needs a download."""

    contains: str = ""
    everything: bool = False


@dataclass(frozen=True, slots=True)
class ModelList:
    """Models, and how many more would have to be downloaded."""

    models: tuple[Model, ...]
    hidden: int

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond models --json`."""
        return {"models": [model.to_json() for model in self.models]}


def run(options: ModelsOptions) -> ModelList:
    """List the models by their names; without a text and without `everything`, those that need no download.

    Raises ModelError if open_clip cannot be imported.
    """
    from clipcond.models.catalogue import local_models, open_clip_models

    known = (*local_models(), *open_clip_models())
    wanted = tuple(model for model in known if options.contains.casefold() in model.spec.casefold())
    if options.everything or options.contains:
        return ModelList(wanted, hidden=0)
    here = tuple(model for model in wanted if model.cached)
    return ModelList(here, hidden=len(wanted) - len(here))
