"""The model hub from outside: whether it answers, and foreign errors in one line."""

from __future__ import annotations

import pytest

from clipcond.runtime import hub
from clipcond.runtime.hub import why_not
from clipcond.wording import first_line


def test_the_hub_is_asked_only_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy"})
    assert hub._hub_answers()
    monkeypatch.setattr(hub, "getproxies", dict)

    def refuse(address: tuple[str, int], timeout: float) -> None:
        raise ConnectionRefusedError(address, timeout)

    monkeypatch.setattr(hub.socket, "create_connection", refuse)
    assert not hub._hub_answers()


def test_a_foreign_error_becomes_one_line() -> None:
    assert first_line(ValueError("\n  sizes   do not fit.\nmore")) == "sizes do not fit"
    assert (
        first_line(RuntimeError("Error(s) in loading:\n\tmissing a\n\tmissing b")) == "Error(s) in loading: missing a"
    )
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) == 298


def test_out_of_reach_is_found_behind_other_errors() -> None:
    class ConnectTimeout(Exception):
        pass

    outer = OSError("see the stack trace above")
    outer.__cause__ = ConnectTimeout("timed out")
    assert why_not(outer) == "are not in the local cache, and the hub cannot be reached"
    assert why_not(OSError("401 Unauthorized")) == "cannot be fetched or read: 401 Unauthorized"
