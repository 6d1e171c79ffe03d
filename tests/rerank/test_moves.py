"""Pictures copied, moved and linked with their sidecars, and all of it taken back, also after a kill at any point."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from clipcond.errors import ConfigError, DataError
from clipcond.rerank.journal import latest_journal, read_journal
from clipcond.rerank.moves import Action, Moves, carry_out, plan_moves
from clipcond.rerank.undo import undo

ACTIONS: tuple[Action, ...] = ("copy", "move", "link")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder by its path, with its content; journals left out."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else "(dangling)"
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not path.name.startswith(".clipcond-moves-")
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of pictures: `a` with sidecars, `b` without, `c` twice with one sidecar, and one elsewhere called `a`."""
    folder = tmp_path / "run"
    (folder / "other").mkdir(parents=True)
    for name in ("a.png", "a.txt", "a.json", "a.npz", "b.png", "c.png", "c.jpg", "c.caption", "other/a.png"):
        (folder / name).write_text(f"content of {name}")
    return folder


def moved(run: Path, names: list[str], action: Action, to: str = "best") -> Moves:
    return carry_out(plan_moves([run / name for name in names], run.parent / to, action))


def test_a_plan_changes_nothing_and_says_what_would_be_done(run: Path) -> None:
    before = tree(run.parent)
    plan = plan_moves([run / "a.png", run / "none.png", run / "other/a.png"], run.parent / "best", "move")
    assert [(step.action, step.source.name, step.target.name) for step in plan.steps] == [
        ("move", "a.png", "a.png"),
        ("copy", "a.json", "a.json"),
        ("copy", "a.txt", "a.txt"),
        ("move", "a.png", "a (2).png"),
    ]
    assert plan.skipped == ((run / "none.png", "no such file"),)
    assert tree(run.parent) == before
    assert not (run.parent / "best").exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_sidecars_go_along(run: Path, action: Action) -> None:
    (run / "a.npz").unlink()
    before = tree(run)
    told: list[str] = []
    plan = plan_moves([run / "a.png", run / "b.png"], run.parent / "best", action)
    result = carry_out(plan, events=lambda step: told.append(step.source.name))
    assert told == ["a.png", "a.json", "a.txt", "b.png"]
    assert tree(run.parent / "best") == {name: before[name] for name in ("a.json", "a.png", "a.txt", "b.png")}
    left = {} if action == "move" else {name: before[name] for name in ("a.png", "a.txt", "a.json", "b.png")}
    assert tree(run) == left | {name: before[name] for name in ("c.png", "c.jpg", "c.caption", "other/a.png")}
    assert (len(result.done), result.failed) == (4, ())
    if action == "link":
        assert (run / "a.png").samefile(run.parent / "best/a.png")


def test_sidecars_stay_when_asked(run: Path) -> None:
    plan = plan_moves([run / "a.png"], run.parent / "best", "copy", sidecars=False)
    assert [step.source.name for step in plan.steps] == ["a.png"]


def test_pictures_of_one_stem_keep_one_stem_and_a_sidecar_stays_with_those_that_stay(run: Path) -> None:
    best = run.parent / "best"
    best.mkdir()
    (best / "C.caption").write_text("somebody else's")
    moved(run, ["c.png"], "move")
    assert sorted(tree(best)) == ["C.caption", "c (2).caption", "c (2).png"]
    assert {"c.jpg", "c.caption"} <= tree(run).keys()
    moved(run, ["c.jpg"], "move")
    assert sorted(tree(best)) == ["C.caption", "c (2).caption", "c (2).png", "c (3).caption", "c (3).jpg"]
    assert not {"c.jpg", "c.caption"} & tree(run).keys()


def test_nothing_is_ever_overwritten(run: Path) -> None:
    best = run.parent / "best"
    best.mkdir()
    (best / "b.png").symlink_to(best / "nowhere")
    for _ in range(3):
        moved(run, ["b.png"], "copy")
    assert sorted(tree(best)) == ["b (2).png", "b (3).png", "b (4).png", "b.png"]
    assert (best / "b.png").is_symlink()


def test_a_file_that_appears_after_the_plan_is_kept_and_the_picture_stays_with_its_sidecars(run: Path) -> None:
    plan = plan_moves([run / "a.png", run / "b.png"], run.parent / "best", "move")
    (run.parent / "best").mkdir()
    (run.parent / "best/a.png").write_text("somebody else's")
    result = carry_out(plan)
    assert [step.source.name for step in result.done] == ["b.png"]
    assert dict(result.failed).keys() == {run / "a.png", run / "a.json", run / "a.txt"}
    assert "a.png is there already" in result.failed[0][1]
    assert result.failed[1] == (run / "a.json", "a.png stays where it is")
    assert tree(run.parent / "best") == {"a.png": "somebody else's", "b.png": "content of b.png"}
    assert undo(run.parent / "best").kept == ()
    assert tree(run.parent / "best") == {"a.png": "somebody else's"}


def test_long_names_are_cut_between_characters(run: Path) -> None:
    name = "ü" * 125 + ".png"
    (run / name).write_text("long")
    for _ in range(2):
        moved(run, [name], "copy")
    assert sorted(tree(run.parent / "best")) == ["ü" * 123 + " (2).png", name]


def test_what_is_no_file_of_its_own_stays_out(run: Path) -> None:
    (run / "link.png").symlink_to(run / "a.png")
    os.mkfifo(run / "pipe.png")
    plan = plan_moves([run / "link.png", run / "pipe.png", run / "other", run / "a.png"], run, "copy")
    assert plan.steps == ()
    assert [reason for _, reason in plan.skipped] == [
        "is a symbolic link; name the file it leads to",
        "is no regular file",
        "is no regular file",
        f"is in {run} already",
    ]
    assert carry_out(plan) == Moves(done=(), failed=(), journal=None)


def test_bad_requests_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="unknown action 'delete'; expected copy, move or link"):
        plan_moves([], run, "delete")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"a\.png is a file; name a folder for the pictures"):
        plan_moves([run / "b.png"], run / "a.png", "copy")


@pytest.mark.parametrize("action", ACTIONS)
def test_undo_restores_everything(run: Path, action: Action) -> None:
    before = tree(run.parent)
    result = moved(run, ["a.png", "b.png", "c.png", "c.jpg", "other/a.png"], action, "new/best")
    undone = undo(run.parent / "new/best")
    assert tree(run.parent) == before
    assert (len(undone.restored), undone.kept, undone.journal) == (len(result.done), (), result.journal)
    assert not (run.parent / "new").exists()


def test_the_last_moves_are_taken_back_first(run: Path) -> None:
    before = tree(run)
    for name in ("a.png", "b.png"):
        moved(run, [name], "move")
    undo(run.parent / "best")
    assert "b.png" in tree(run)
    assert "a.png" not in tree(run)
    undo(run.parent / "best")
    assert tree(run) == before
    with pytest.raises(DataError, match="no journal of moves"):
        undo(run)


def test_a_journal_in_a_given_place(run: Path) -> None:
    before = tree(run)
    plan = plan_moves([run / "b.png"], run.parent / "best", "move")
    result = carry_out(plan, journal=run.parent / "journals")
    assert result.journal == run.parent / "journals/.clipcond-moves-0001.jsonl"
    assert list(tree(run.parent / "best")) == ["b.png"]
    assert latest_journal(run.parent / "best") is None
    undo(run.parent / "journals")
    assert tree(run) == before


def test_undo_overwrites_nothing_that_has_appeared_and_says_so(run: Path) -> None:
    moved(run, ["a.png", "b.png"], "move")
    (run / "b.png").write_text("a new one")
    undone = undo(run.parent / "best")
    assert undone.kept == ((run.parent / "best/b.png", f"stays, since something is in its old place {run / 'b.png'}"),)
    assert ((run / "b.png").read_text(), (run / "a.png").exists()) == ("a new one", True)
    assert (run.parent / "best/b.png").read_text() == "content of b.png"
    (run / "b.png").unlink()  # out of the way: once more
    assert undo(run.parent / "best").kept == ()
    assert (run / "b.png").read_text() == "content of b.png"


@pytest.mark.parametrize("action", ["copy", "link"])
def test_undo_never_removes_the_only_one_that_is_left(run: Path, action: Action) -> None:
    moved(run, ["a.png", "b.png"], action)
    (run / "b.png").unlink()
    (run / "a.txt").replace(run / "a.png")  # the picture itself is no longer there
    undone = undo(run.parent / "best")
    assert dict(undone.kept) == {
        run.parent / "best/a.png": f"stays, since it differs from {run / 'a.png'}",
        run.parent / "best/a.txt": f"is the only one left, {run / 'a.txt'} is gone",
        run.parent / "best/b.png": f"is the only one left, {run / 'b.png'} is gone",
    }


def test_undo_keeps_a_picture_whose_old_place_is_a_link_to_it(run: Path) -> None:
    moved(run, ["b.png"], "move")
    (run / "b.png").symlink_to(run.parent / "best/b.png")
    assert len(undo(run.parent / "best").kept) == 1
    assert (run / "b.png").read_text() == "content of b.png"


def test_undo_says_what_is_gone(run: Path) -> None:
    moved(run, ["b.png"], "move")
    (run.parent / "best/b.png").unlink()
    assert undo(run.parent / "best").kept == ((run.parent / "best/b.png", f"is gone, and so is {run / 'b.png'}"),)


def test_undo_makes_the_old_folder_again(run: Path) -> None:
    before = tree(run)
    moved(run, ["other/a.png"], "move")
    (run / "other").rmdir()
    undo(run.parent / "best")
    assert tree(run) == before


def test_names_that_are_no_text_come_back(run: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(run) + b"/\xff\n.png"))
    path.write_text("odd")
    carry_out(plan_moves([path], run.parent / "best", "move"))
    undo(run.parent / "best")
    assert path.read_text() == "odd"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to move to")
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("action", ACTIONS)
def test_to_another_file_system_and_back(run: Path, elsewhere: Path, action: Action) -> None:
    before = tree(run)
    carry_out(plan_moves([run / "a.png", run / "b.png"], elsewhere / "best", action))
    assert (elsewhere / "best/b.png").read_text() == "content of b.png"
    assert (elsewhere / "best/b.png").is_symlink() == (action == "link")
    undo(elsewhere / "best")
    assert tree(run) == before
    assert tree(elsewhere) == {}


def killed(at: int, work: Callable[[], object]) -> bool:
    """Do some work in a process that is killed at its n-th change of a file or folder. False if it ended before."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    if call is write:
                        call(args[0], args[1][: len(args[1]) // 2])  # a line that is torn
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return wrapped

        write = os.write
        for name in ("link", "unlink", "replace", "symlink", "write", "mkdir", "rmdir", "fsync", "open", "chmod"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def undone_after_kill(run: Path, best: Path, action: Action, at: int) -> bool:
    before = tree(run.parent)
    plan = plan_moves([run / "a.png", run / "b.png", run / "other/a.png"], best, action)
    dead = killed(at, lambda: carry_out(plan))
    if latest_journal(best) is not None:
        try:
            undone = undo(best)
        except DataError:  # killed in the first line of the journal: nothing was done
            (journal,) = best.glob(".clipcond-moves-*")
            journal.unlink()
        else:
            assert undone.kept == ()
    assert tree(run.parent) == before
    assert not best.is_dir() or not list(best.iterdir())
    return dead


@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_any_point_everything_can_be_taken_back(run: Path, action: Action) -> None:
    points = 0
    while undone_after_kill(run, run.parent / f"best-{points}", action, points + 1):
        points += 1
    assert points > 15


def test_killed_at_any_point_between_file_systems_everything_can_be_taken_back(run: Path, elsewhere: Path) -> None:
    points = 0
    while undone_after_kill(run, elsewhere / f"best-{points}", "move", points + 1):
        points += 1
    assert points > 40


@pytest.mark.parametrize("action", ACTIONS)
def test_undo_that_is_killed_can_be_repeated(run: Path, action: Action) -> None:
    before = tree(run.parent)
    points, dead = 0, True
    while dead:
        points += 1
        best = run.parent / f"best-{points}"
        moved(run, ["a.png", "b.png", "other/a.png"], action, best.name)
        dead = killed(points, lambda best=best: undo(best))  # type: ignore[misc]
        if latest_journal(best) is not None:
            assert undo(best).kept == ()
        assert tree(run.parent) == before
    assert points > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no journal of moves"),
        (b"\xff[[[[", "is no journal of moves"),
        (b'["clipcond"]', "is no journal of moves"),
        (b'{"clipcond": "moves", "version": 2, "folder": "/x"}', "by another version of clipcond"),
        (b'{"clipcond": "moves", "version": 1, "folder": "/x"}\n{"action": "move", "source": "/x/a.png", "target": "../a.png"}',
         "names a move that clipcond does not make"),
        (b'{"clipcond": "moves", "version": 1, "folder": "/x"}\n{"action": "move", "source": "/x/a.sh", "target": "a.png"}',
         "names a move that clipcond does not make"),
        (b'{"clipcond": "moves", "version": 1, "folder": "/x"}\n{"action": "move", "source": "a.png", "target": "a.png"}',
         "names a move that clipcond does not make"),
        (b'{"clipcond": "moves", "version": 1, "folder": "/x"}\n{"action": "run", "source": "/x/a.png", "target": "a.png"}',
         "names a move that clipcond does not make"),
    ],
)  # fmt: skip
def test_hostile_journals_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / ".clipcond-moves-0001.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        undo(tmp_path)
    assert path.read_bytes() == content


def test_a_journal_removes_no_folder_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = tmp_path / ".clipcond-moves-0001.jsonl"
    head = {"clipcond": "moves", "version": 1, "folder": str(tmp_path), "made": [str(tmp_path / "empty"), 3]}
    path.write_text(json.dumps(head) + "\n")
    assert read_journal(path).made == ()
    undo(path)
    assert (tmp_path / "empty").is_dir()


def test_a_journal_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*none\.jsonl; name the folder that pictures were moved to"):
        undo(tmp_path / "none.jsonl")
