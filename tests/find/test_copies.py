from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from clipcond.find.copies import find_duplicates
from clipcond.find.gallery import gallery
from clipcond.rerank.scorer import Scorer


@pytest.fixture
def folder(sorted_pictures: Path, tmp_path: Path) -> Path:
    """Two different pictures; of the first an exact copy and a larger one."""
    shutil.copyfile(sorted_pictures / "red" / "0.png", tmp_path / "a.png")
    shutil.copyfile(sorted_pictures / "red" / "0.png", tmp_path / "b.png")
    shutil.copyfile(sorted_pictures / "blue" / "1.png", tmp_path / "c.png")
    with Image.open(tmp_path / "a.png") as image:
        image.resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / "d.png")
    for age, name in enumerate("abcd"):
        os.utime(tmp_path / f"{name}.png", (2_000_000 - age, 2_000_000 - age))
    return tmp_path


def test_the_largest_is_kept_then_the_oldest(folder: Path, mini_scorer: Scorer) -> None:
    (group,) = find_duplicates(gallery(sorted(folder.glob("*.png")), mini_scorer))
    assert group.keep.name == "d.png"
    assert [(copy.path.name, copy.kind) for copy in group.copies] == [("a.png", "near"), ("b.png", "near")]
    (folder / "d.png").unlink()
    (group,) = find_duplicates(gallery(sorted(folder.glob("*.png")), mini_scorer))
    assert group.keep.name == "b.png"
    assert [(copy.path.name, copy.kind) for copy in group.copies] == [("a.png", "exact")]
    assert group.to_json()["copies"][0]["cosine"] == 1.0


def test_what_differs_is_no_group(folder: Path, mini_scorer: Scorer) -> None:
    assert find_duplicates(gallery([folder / "a.png", folder / "c.png"], mini_scorer)) == ()
