import pytest

from clipcond import resources
from clipcond.errors import ResourceMissing
from clipcond.find.labels import TEMPLATE_SETS
from clipcond.mini import world
from clipcond.prompt.tokenizer import CONTENT, tokenize
from clipcond.resources import bundled, embedded
from clipcond.workflows.captions import PHRASE_LISTS


def test_a_file_of_the_checkout_is_found():
    assert bundled("prompts", "demo.txt").name == "demo.txt"


def test_the_wheels_copy_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_HERE", tmp_path / "clipcond")
    for place in ("clipcond/_bundled/prompts", "prompts"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.txt").write_text(place)
    (tmp_path / "pyproject.toml").write_text("")
    assert bundled("prompts", "a.txt").read_text() == "clipcond/_bundled/prompts"


def test_a_sibling_of_an_installed_package_is_not_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_HERE", tmp_path / "clipcond")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.txt").write_text("somebody else's")
    with pytest.raises(ResourceMissing, match=r"no prompts file named 'a\.txt'; looked in .*_bundled"):
        bundled("prompts", "a.txt")


def test_the_embedded_model_is_found_or_named_as_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_HERE", tmp_path)
    with pytest.raises(ResourceMissing, match=r"the embedded model is incomplete: .* reinstall clipcond"):
        embedded("clip")
    (tmp_path / "mini" / "weights" / "clip").mkdir(parents=True)
    assert embedded("clip") == tmp_path / "mini" / "weights" / "clip"


def test_every_prompt_file_has_its_test_here():
    assert sorted(path.name for path in bundled("prompts", "demo.txt").parent.iterdir()) == [
        "analysis",
        "demo.txt",
        "general.txt",
        "phrases",
        "templates",
        "wildcards",
    ]


def test_phrases_are_one_a_line_each_once_and_short():
    lists = {
        path.stem: path.read_text(encoding="utf-8").splitlines()
        for path in bundled("prompts", "phrases/light.txt").parent.iterdir()
    }
    assert sorted(lists) == sorted(PHRASE_LISTS)
    every = [phrase for phrases in lists.values() for phrase in phrases]
    assert all(phrase == phrase.strip() and 0 < len(tokenize(phrase)) <= 10 for phrase in every)
    assert len(set(every)) == len(every)


def test_templates_are_the_sets_that_the_command_names():
    folder = bundled("prompts", "templates/photo.txt").parent
    assert sorted(path.stem for path in folder.iterdir()) == sorted(
        TEMPLATE_SETS
    )  # tests/find/test_labels.py reads them


def test_demo_prompts_lose_several_objects_at_the_cut_and_keep_several():
    lines = bundled("prompts", "demo.txt").read_text(encoding="utf-8").splitlines()
    prompts = [line for line in lines if line and not line.startswith("#")]
    assert len(prompts) >= 3
    for prompt in prompts:
        tokens, scene = tokenize(prompt), world.parse(prompt)
        read = world.parse(prompt[: tokens[CONTENT].start])
        assert scene.background
        assert len(tokens) <= 2 * CONTENT
        assert scene.objects[: len(read.objects)] == read.objects
        assert len(read.objects) >= 3
        assert len(scene.objects) - len(read.objects) >= 3
