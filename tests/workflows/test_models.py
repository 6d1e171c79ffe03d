"""The job of `clipcond models`, without its command."""

from __future__ import annotations

import pytest

from clipcond.errors import OptionsError
from clipcond.models import catalogue
from clipcond.models.catalogue import Model
from clipcond.workflows.models import ModelsOptions, run


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models: one here, one to be downloaded."""

    def model(spec: str, *, cached: bool) -> Model:
        return Model(
            spec=spec, kind="dual", library="open_clip", use=("rerank",), cached=cached, bytes=None, source="hub: a/b"
        )

    monkeypatch.setattr(catalogue, "local_models", lambda folders: (model("here/one", cached=True),))
    monkeypatch.setattr(catalogue, "open_clip_models", lambda: (model("ViT-B-32/openai", cached=False),))


@pytest.mark.parametrize(
    ("options", "specs", "hidden"),
    [
        (ModelsOptions(), ["here/one"], 1),
        (ModelsOptions(everything=True), ["here/one", "ViT-B-32/openai"], 0),
        (ModelsOptions("vit-b"), ["ViT-B-32/openai"], 0),
        (ModelsOptions("nonesuch"), [], 0),
        (ModelsOptions(everything=True, kind="dual"), ["here/one", "ViT-B-32/openai"], 0),
        (ModelsOptions(everything=True, kind="pipeline"), [], 0),
    ],
)
def test_what_is_listed(options: ModelsOptions, specs: list[str], hidden: int) -> None:
    found = run(options)
    assert ([model.spec for model in found.models], found.hidden) == (specs, hidden)
    assert [row["spec"] for row in found.to_json()["models"]] == specs  # type: ignore[attr-defined]


def test_another_kind_is_wrong_usage() -> None:
    with pytest.raises(OptionsError, match="--kind lora does not exist; there are dual, pipeline, matching, detection"):
        ModelsOptions(kind="lora")
