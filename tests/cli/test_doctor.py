import json
import subprocess
import sys

import pytest

from clipcond.cli import main
from clipcond.workflows import machine as subject
from clipcond.workflows.machine import Embedded, Library


@pytest.fixture
def broken_torchvision(monkeypatch):
    """A machine whose torchvision cannot be imported and whose embedded model is absent."""
    whole = subject.look_at_library

    def look(distribution, module, *, required):
        if distribution == "torchvision":
            note = "RuntimeError: operator torchvision::nms does not exist"
            return Library(name=distribution, version="0.28.0", required=required, works=False, note=note)
        return whole(distribution, module, required=required)

    monkeypatch.setattr(subject, "look_at_library", look)
    parts = {"mini": ("clip", "pipeline"), "emoji": ()}

    def look_for(name):
        return Embedded(name=name, complete=not parts[name], bytes=0, path=None, missing=parts[name])

    monkeypatch.setattr(subject, "look_for_embedded", look_for)


@pytest.fixture
def sound(monkeypatch):
    """A machine on which nothing is wrong, whatever the one of the test is like."""
    monkeypatch.setattr(subject, "find_problems", lambda *_: iter(()))


def test_json_is_the_only_output_and_holds_the_report(capsys, sound):
    assert main(["doctor", "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert said.err == ""
    names = [library["name"] for library in report["libraries"]]
    assert names == [*subject.REQUIRED, *subject.OPTIONAL]
    assert report["processor"]["cores"] >= 1
    assert report["problems"] == []
    assert set(report) >= {"clipcond", "python", "platform", "accelerators", "torchvision_repaired", "mini", "hub"}


def test_people_get_a_table_and_a_clean_bill_on_stderr(capsys, sound):
    assert main(["doctor", "--fail-on-problem"]) == 0
    said = capsys.readouterr()
    assert "torch" in said.out
    assert "processor" in said.out
    assert said.err == "no problems found\n"


def test_problems_come_with_advice_and_exit_1_only_when_asked(capsys, broken_torchvision):
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    assert "torchvision 0.28.0 does not work: RuntimeError: operator torchvision::nms" in " ".join(said.err.split())
    assert "pip install -c constraints.txt torchvision" in " ".join(said.err.split())
    assert "the embedded model mini lacks its clip and pipeline" in said.err
    assert main(["doctor", "--fail-on-problem"]) == 1
    capsys.readouterr()
    assert main(["doctor", "--json", "--fail-on-problem"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2


NOTHING = """import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "transformers", "open_clip", "huggingface_hub"}:
            raise ImportError("no " + name + " here")
sys.meta_path.insert(0, Wall())
from clipcond.cli import main
sys.exit(main(["doctor", "--json", "--fail-on-problem"]))
"""


def test_it_survives_a_machine_without_any_model_library():
    run = subprocess.run([sys.executable, "-c", NOTHING], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    report = json.loads(run.stdout)
    state = {library["name"]: library for library in report["libraries"]}
    assert state["torch"]["note"] == "ImportError: no torch here"
    assert state["numpy"]["works"]
    assert report["processor"]["threads"] is None
    assert report["accelerators"] == []
    assert any("torch" in problem["what"] for problem in report["problems"])


@pytest.fixture
def known(monkeypatch):
    """Two models: one here, one to be downloaded."""
    from clipcond.models import catalogue

    def model(spec, cached):
        size = 2**21 if cached else None
        return catalogue.Model(
            spec=spec,
            kind="dual",
            library="open_clip",
            use=("rerank", "train"),
            cached=cached,
            bytes=size,
            source="hub: a/b",
        )

    monkeypatch.setattr(catalogue, "local_models", lambda folders: (model("here/[red]", True),))
    monkeypatch.setattr(catalogue, "open_clip_models", lambda: (model("ViT-B-32/openai", False),))


def test_models_lists_what_is_here_and_says_how_much_more_there_is(capsys, known):
    assert main(["models"]) == 0
    said = capsys.readouterr()
    assert "here/[red]" in said.out
    assert "2.0 MiB" in said.out
    assert "ViT-B-32" not in said.out
    assert "1 more can be downloaded: --all lists them" in said.err


@pytest.mark.parametrize("arguments", [["--all"], ["vit-b"]])
def test_models_lists_downloads_when_asked(capsys, known, arguments):
    assert main(["models", *arguments]) == 0
    assert "ViT-B-32/openai" in capsys.readouterr().out


def test_models_as_json(capsys, known):
    assert main(["models", "--all", "--json"]) == 0
    said = capsys.readouterr()
    listed = json.loads(said.out)["models"]
    assert [(row["spec"], row["cached"]) for row in listed] == [("here/[red]", True), ("ViT-B-32/openai", False)]
    assert said.err == ""


def test_models_without_a_match_says_so(capsys, known):
    assert main(["models", "nonesuch"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "no model has 'nonesuch' in its name" in said.err
