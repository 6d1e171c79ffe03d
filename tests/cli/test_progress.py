"""Events on standard error: notes always, bars and spinners on a terminal only."""

from __future__ import annotations

import pytest

from clipcond.cli.progress import progress
from clipcond.workflows.events import Event, Note, task


def test_off_a_terminal_only_notes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as events:
        with task(events, "scoring", 3, "pictures") as advance:
            advance(3)
        with task(events, "loading"):
            pass
        events(Note("a\x1b[31m file\nname"))
        events(Event())
    assert capsys.readouterr() == ("", "note: a␛[31m file↵name\n")


def test_a_terminal_shows_the_task_and_clears_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes this for a terminal
    with progress() as events:
        with task(events, "loading [a model]"):
            pass
        with task(events, "scoring", 4, "pictures") as advance:
            advance(4)
            events(Note("an empty folder"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "loading [a model]" in err
    assert "scoring" in err
    assert "4/4" in err
    assert "note: an empty folder" in err


def test_an_error_leaves_no_bar_behind(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(ValueError, match="broken"), progress() as events, task(events, "scoring", 4):
        raise ValueError("broken")
    assert capsys.readouterr().err.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, the bar gone
