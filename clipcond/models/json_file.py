"""JSON documents beside weights, read as hostile input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipcond.errors import ModelError
from clipcond.wording import first_line

LARGEST = 1 << 24  # bytes: configs have some thousand


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file holds. Raises ModelError in one line for anything else."""
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes; expected a config of at most {LARGEST:,}")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    except RecursionError:
        raise ModelError(f"{path} is not JSON that can be read: it is nested too deeply") from None
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path} holds a JSON {type(document).__name__}; expected an object of settings")
    return document
