"""An interruption in the midst of an import waits for its end; a second one does not."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from clipcond.cli.interruption import check, interrupted, noted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes modules that can be imported once; returns the one that was, whatever it raised."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)  # in the background: ignored

    def imported(body: str):
        name = f"interrupted_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(f"import os, signal, time\nends = []\n{body}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return imported


def test_an_import_comes_to_its_end_before_the_interruption(module) -> None:
    body = "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.1)\nends.append(1)"
    found = []

    def work() -> None:
        found.append(module(body))
        time.sleep(10)

    with noted(), pytest.raises(KeyboardInterrupt):
        work()
    assert found[0].ends == [1]
    assert interrupted()


def test_it_comes_before_the_next_import_begins(module) -> None:
    body = "os.kill(os.getpid(), signal.SIGINT)"

    def work() -> None:
        module(body)
        module("raise AssertionError('this import should not have begun')")

    with noted(), pytest.raises(KeyboardInterrupt):
        work()
    assert __import__.__module__ == "builtins"  # what watched imports is gone


def test_it_comes_once_when_the_program_asks_before_it_came(module) -> None:
    came = []

    def work() -> None:
        module("os.kill(os.getpid(), signal.SIGINT)")
        try:
            check()
        except KeyboardInterrupt:
            came.append(1)
        time.sleep(0.2)

    with noted():
        work()
    assert came == [1]


def test_a_second_interruption_does_not_wait(module) -> None:
    body = "\n".join(["os.kill(os.getpid(), signal.SIGINT)"] * 2 + ["time.sleep(10)"])
    start = time.monotonic()
    with noted(), pytest.raises(KeyboardInterrupt):
        module(body)
    assert time.monotonic() - start < 5


def test_outside_an_import_it_comes_at_once() -> None:
    with noted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_waits_when_the_block_ends_comes_no_more(module) -> None:
    with noted():
        module("os.kill(os.getpid(), signal.SIGINT)")
    time.sleep(0.1)  # beyond the look at the import: no KeyboardInterrupt here, where others' handler stands
    assert interrupted()


def test_a_hook_of_imports_that_others_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(*args: object, **kwargs: object) -> object:
        return own(*args, **kwargs)

    own = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", hook)
    with noted():
        pass
    assert builtins.__import__ is hook
