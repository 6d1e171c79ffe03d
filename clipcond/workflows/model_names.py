"""Names of models, looked at before a model library is imported."""

from __future__ import annotations

from pathlib import Path

from clipcond.errors import ModelError
from clipcond.models.spec import OPENAI_NAMES, parse_spec


def check_model(spec: str) -> None:
    """Raise ModelError for a name that is plainly a path and leads to nothing, and for overrides that no model takes.

    Any other name is left to the loader.
    """
    name = parse_spec(spec).base.removeprefix("hf:")
    _, at, checkpoint = name.rpartition("@")
    path = Path(checkpoint if at else name).expanduser()
    looks_like_path = name.startswith((".", "/", "~")) or bool(at)
    if looks_like_path and name not in OPENAI_NAMES and not path.exists():
        raise ModelError(
            f"no model {spec!r}: there is no such folder or file; give mini, emoji, NAME/PRETRAINED, hf:ID, or a folder"
        )
