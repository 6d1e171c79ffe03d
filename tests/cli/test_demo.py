"""`clipcond demo`, end to end on tiny random models."""

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.errors import DataError
from clipcond.prompt.infotext import parse_infotext
from clipcond.workflows.demo import demo_prompt


@pytest.fixture
def run(sd_folder, dual_folder, tmp_path, capsys):
    """The command on tiny random models; gives exit code, what it wrote to both streams, and the folder."""

    def call(*more, out="demo"):
        models = ["--pipeline", str(sd_folder), "--model", str(dual_folder)]
        code = main(["demo", "--out", str(tmp_path / out), "-n", "2", *models, *more])
        said = capsys.readouterr()
        return code, said.out, said.err, tmp_path / out

    return call


def test_the_command_writes_a_page_and_pictures_with_their_prompts(run):
    code, out, err, folder = run()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "prompt    131/75 tokens → 2 chunks; a stock pipeline drops 56 tokens and 4 of 7 objects"
    assert lines[-1].startswith(f"page      {folder / 'index.html'}  (")
    assert (folder / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names == ["clipcond-0.png", "clipcond-1.png", "stock-0.png", "stock-1.png"]
    with Image.open(folder / "clipcond-1.png") as picture:
        info = parse_infotext(picture.info["parameters"])
    assert info.prompt == demo_prompt(0)
    assert str(info.settings["Seed"]) == "1"


def test_a_second_run_replaces_the_first_and_nothing_else(run):
    _, _, _, folder = run()
    (folder / "mine.txt").write_text("mine")
    code, _, _, _ = run("--seed", "1")
    assert code == 0
    assert (folder / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "clipcond-1.png",
        "clipcond-2.png",
        "stock-1.png",
        "stock-2.png",
    ]


def test_a_foreign_folder_is_left_alone(run, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("mine")
    code, out, err, folder = run()
    assert (code, out) == (3, "")
    assert "was not made by a demo; name another folder with --out, nothing is overwritten" in err
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    assert (folder / "index.html").read_text() == "mine"


def test_a_prompt_that_is_not_cut_is_refused(run, monkeypatch):
    monkeypatch.setattr("clipcond.workflows.demo.demo_prompt", lambda seed: "a red circle")
    code, _, err, _ = run()
    assert code == 3
    assert err == "error: the demo's prompt has 3 tokens; expected more than 75\n"
    assert issubclass(DataError, ValueError)
