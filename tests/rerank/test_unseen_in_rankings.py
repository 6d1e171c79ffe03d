"""A ranking says which words of its prompts the model has never seen, wherever the prompts come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.models import catalogue
from clipcond.models.catalogue import Model, pretrained_here
from clipcond.pages.contact_sheet import contact_sheet
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.unseen import unseen_in


@pytest.fixture(scope="module")
def mini() -> Scorer:
    return Scorer.load("mini", device="cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, prompt in {"a": "a red circle", "b": "a Fox in the snow", "c": "a fox, (a blue circle:1.2)"}.items():
        Image.new("RGB", (64, 64), "red").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(prompt)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """The models of the local cache: none, or those that a test puts there."""
    here: list[Model] = []
    monkeypatch.setattr(catalogue, "local_models", lambda: tuple(here))
    monkeypatch.setattr(catalogue, "open_clip_models", lambda: ())
    return here


def model(spec: str, size: int, *use: str, here: bool = True) -> Model:
    return Model(
        spec=spec,
        kind="transformers",
        library="transformers",
        use=use or ("rerank",),
        cached=here,
        bytes=size,
        source="",
    )


def test_words_of_sidecars_and_metadata_are_looked_up_each_once(
    mini: Scorer, folder: Path, cached: list[Model]
) -> None:
    ranking = rerank(sorted(folder.glob("*.png")), scorer=mini)
    assert ranking.unseen == ("fox", "snow")
    assert ranking.warning == "mini has never seen the words fox, snow; it reads nothing there"
    assert unseen_in(["a red circle, a blue square"], mini) == ()
    assert rerank([folder / "a.png"], scorer=mini).warning == ""


def test_a_model_that_knows_all_tokens_says_nothing(dual_folder: Path, folder: Path) -> None:
    scorer = Scorer.load(str(dual_folder), device="cpu")
    assert rerank([folder / "b.png"], scorer=scorer).warning == ""


def test_a_pretrained_model_in_the_cache_is_named(mini: Scorer, folder: Path, cached: list[Model]) -> None:
    cached += [
        model("hf:small", 10),
        model("ViT-L-14/openai", 90),
        model("hf:away", 999, here=False),
        model("some/pipeline", 9999, "generate"),
    ]
    assert rerank([folder / "b.png"], scorer=mini).warning.endswith(
        "it reads nothing there; in your cache lies a pretrained model, --model ViT-L-14/openai"
    )
    assert pretrained_here("generate") == "some/pipeline"
    cached.clear()
    assert pretrained_here("rerank") == ""


def test_the_table_the_streams_the_file_and_the_sheet_say_so(
    folder: Path, cached: list[Model], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "mini has never seen the words fox, snow; it reads nothing there"
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("clipcond.cli.rerank_run.on_terminal", lambda: True)
    assert main(["rerank", ".", "--csv", "all.json", "--html", "sheet.html"]) == 0
    out, err = capsys.readouterr()
    assert f"words   {line}" in out
    assert out.index(line) < out.index("rank ")
    assert line not in err
    assert json.loads(Path("all.json").read_text())["unseen_words"] == ["fox", "snow"]
    assert f'<p class="warning">{line}</p>' in Path("sheet.html").read_text()
    assert main(["rerank", ".", "--json"]) == 0
    out, err = capsys.readouterr()
    assert line not in out
    assert f"note: {line}" in err


def test_a_hostile_word_is_shown_harmlessly(mini: Scorer, folder: Path, cached: list[Model]) -> None:
    page = contact_sheet(rerank([folder / "a.png"], "a <script>fox</script> \x1b[31m", scorer=mini))
    assert "<script>fox" not in page
