"""The job of `clipcond demo`: a story, and a folder in which nothing of the user's own is touched."""

import json
from pathlib import Path

import pytest

from clipcond.errors import OutputExists
from clipcond.workflows.demo import MARKER, DemoOptions, check_folder, demo_prompt, mean_right, run, write, write_folder
from clipcond.workflows.events import Advanced, Finished, Started


def test_a_story_and_its_events(sd_folder, dual_folder, tmp_path):
    events = []
    options = DemoOptions(out=tmp_path / "demo", count=1, pipeline=str(sd_folder), model=str(dual_folder))
    demo = run(options, events.append)
    assert [event.task for event in events if isinstance(event, Started)] == [
        "loading the model",
        "making pictures",
        "ranking",
    ]
    assert sum(isinstance(event, Finished) for event in events) == 3
    total = next(event.total for event in events if isinstance(event, Started) and event.total)
    assert sum(event.count for event in events if isinstance(event, Advanced)) == total
    assert (demo.story.prompt, demo.replaced) == (demo_prompt(0), ())
    assert [shot.side for shot in (*demo.story.stock, *demo.story.clipcond)] == ["stock", "clipcond"]
    assert 0 <= mean_right(demo.story.stock) <= len(demo.story.scene.objects)
    assert not options.out.exists()
    page = write(demo, "the page")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        MARKER,
        "clipcond-0.png",
        "index.html",
        "stock-0.png",
    ]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists, match="is a file; name another folder with --out"):
        check_folder(tmp_path / "file")


def test_an_empty_folder_can_be_used(tmp_path):
    assert check_folder(tmp_path) == ()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": [1]}'])
def test_a_marker_that_no_demo_wrote_is_no_permission(tmp_path, content):
    (tmp_path / MARKER).write_text(content)
    with pytest.raises(OutputExists, match="was not made by a demo"):
        check_folder(tmp_path)


def test_a_marker_cannot_name_files_elsewhere(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / MARKER).write_text(json.dumps({"files": ["../mine.txt", "index.html"]}))
    assert check_folder(folder) == ("index.html",)


def test_a_file_of_the_users_own_in_a_demo_folder_is_kept(tmp_path):
    write_folder(tmp_path, "one", {}, [])
    (tmp_path / "stock-0.png").write_text("mine")

    def write(path: Path) -> None:
        path.write_text("ours")

    with pytest.raises(OutputExists, match=r"stock-0\.png was not made by a demo; move it"):
        write_folder(tmp_path, "two", {"stock-0.png": write}, check_folder(tmp_path))
    assert (tmp_path / "stock-0.png").read_text() == "mine"


def test_each_seed_has_a_prompt_and_they_come_round():
    prompts = [demo_prompt(seed) for seed in range(3)]
    assert len(set(prompts)) == 3
    assert demo_prompt(3) == prompts[0]
