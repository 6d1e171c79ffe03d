"""The models that can be loaded by their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.workflows.choices import chosen

if TYPE_CHECKING:
    from clipcond.models.catalogue import Model


@dataclass(frozen=True, slots=True)
class ModelsOptions:
    """contains: list names with this in them, whatever its case.   everything: also what needs a download.

    kind: `dual`, `pipeline`, `matching` or `detection` alone.   folders: look there, too; each is a model or holds some.
    Raises OptionsError for another kind.
    """

    contains: str = ""
    everything: bool = False
    kind: str | None = None
    folders: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        _kind(self)


@dataclass(frozen=True, slots=True)
class ModelList:
    """Models by their kinds, and how many more would have to be downloaded."""

    models: tuple[Model, ...]
    hidden: int

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond models --json`."""
        return {"models": [model.to_json() for model in self.models]}


def run(options: ModelsOptions) -> ModelList:
    """List the models by kind and name; without a text and without `everything`, those that need no download.

    Raises ModelError if open_clip cannot be imported, and for a folder that is not there.
    """
    from clipcond.models.catalogue import local_models, open_clip_models
    from clipcond.models.folder_models import KINDS

    kind, published = _kind(options), open_clip_models()
    named = {f"hf:{model.source.removeprefix('hub: ')}" for model in published if model.cached}
    local = [model for model in local_models(folders=options.folders) if model.spec not in named]
    known = sorted((*local, *published), key=lambda model: KINDS.index(model.kind))
    wanted = tuple(
        model for model in known if options.contains.casefold() in model.spec.casefold() and kind in (None, model.kind)
    )
    if options.everything or options.contains:
        return ModelList(wanted, hidden=0)
    here = tuple(model for model in wanted if model.cached)
    return ModelList(here, hidden=len(wanted) - len(here))


def _kind(options: ModelsOptions) -> str | None:
    from clipcond.models.folder_models import KINDS

    return None if options.kind is None else chosen("--kind", options.kind, KINDS)
