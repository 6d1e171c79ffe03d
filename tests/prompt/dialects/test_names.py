"""The names of the dialects, checked in one place."""

import pytest

import clipcond
from clipcond.errors import ConfigError
from clipcond.prompt.analysis.collection import survey
from clipcond.prompt.dialects.names import DIALECTS, check_dialect
from clipcond.prompt.dialects.parse import parse


def test_case_does_not_count():
    assert [check_dialect(name.upper()) for name in DIALECTS] == [*DIALECTS]
    assert check_dialect("Auto", also=["auto"]) == "auto"
    assert parse("(a:1.2)", "A1111") == parse("(a:1.2)", "a1111")
    assert clipcond.plan("(a:1.2)", dialect="Comfy").dialect == "comfy"
    assert clipcond.translate("(a:1.2)", "A1111", "COMPEL").text == "(a)1.2"
    assert survey(["a"], dialect="AUTO").dialect == "auto"


@pytest.mark.parametrize(("name", "near"), [("a111", "a1111"), ("comfyui", "comfy"), ("Compell", "compel")])
def test_an_unknown_name_is_told_the_nearest(name, near):
    message = f"unknown dialect '{name}'; there are plain, a1111, comfy, compel; did you mean '{near}'"
    for call in (
        lambda: parse("a", name),
        lambda: clipcond.plan("a", dialect=name),
        lambda: clipcond.translate("a", "plain", name),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_a_far_name_is_told_the_known_ones_only():
    with pytest.raises(ConfigError, match=r"unknown dialect 'klingon'; there are plain, a1111, comfy, compel$"):
        check_dialect("klingon")
    with pytest.raises(ConfigError, match="there are plain, a1111, comfy, compel, auto; did you mean 'auto'"):
        survey(["a"], dialect="autom")
