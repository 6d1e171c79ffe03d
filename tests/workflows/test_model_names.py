"""Names of models before anything is loaded: plain mistakes of a path are found, all else is left to the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipcond.errors import ModelError
from clipcond.workflows.model_names import check_model


def test_overrides_are_no_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").touch()
    for spec in (
        f"{tmp_path},mean=0.5,tokenizer={tmp_path}",
        f"hf:{tmp_path},std=0.2/0.3/0.4",
        f"ViT-B-32@{tmp_path / 'clip.pt'},activation=quick_gelu,size=336",
        "ViT-L/14@336px",
        "ViT-L-14/openai",
        "mini",
    ):
        check_model(spec)


@pytest.mark.parametrize("spec", ["./nothing", "ViT-B-32@gone.pt", "hf:./nothing,mean=0.5", "~/nothing/at/all"])
def test_paths_to_nothing(spec: str) -> None:
    with pytest.raises(
        ModelError, match=r"no model .*: there is no such folder or file; give mini, emoji, NAME/PRETRAINED"
    ):
        check_model(spec)


def test_overrides_that_no_model_takes() -> None:
    with pytest.raises(ModelError, match="size=big in the model name; expected the side of a square picture"):
        check_model("mini,size=big")
