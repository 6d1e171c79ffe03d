from pathlib import Path

import pytest
from PIL import Image

from clipcond.errors import DataError
from clipcond.workflows.probe import ProbeOptions, run


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    (tmp_path / "foxes").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "foxes" / "a.png")
    with pytest.raises(DataError, match="are of one class, foxes; expected two or more"):
        run(ProbeOptions(train=tmp_path, test=tmp_path))
