import pytest

from clipcond.workflows import machine
from clipcond.workflows.machine import Embedded, Library, find_problems, look_at_library, look_at_processor

WHOLE = Embedded(name="mini", complete=True, bytes=1, path="somewhere", missing=())


def test_a_library_that_is_not_installed():
    found = look_at_library("no-such-distribution", "no_such_module", required=True)
    assert (found.version, found.works) == (None, False)
    (problem,) = find_problems((found,), (WHOLE,))
    assert problem.what == "no-such-distribution is not installed"
    assert problem.advice.startswith("pip install no-such-distribution")


def test_a_library_that_does_not_import(monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist\nTraceback")

    monkeypatch.setattr(machine, "import_module", fail)
    found = look_at_library("numpy", "numpy", required=True)
    assert found.note == "RuntimeError: operator torchvision::nms does not exist"
    assert found.version


def test_an_optional_library_that_is_absent_is_no_problem_and_a_broken_one_is():
    absent = Library(name="xformers", version=None, required=False, works=False, note="not installed")
    broken = Library(name="xformers", version="1.0", required=False, works=False, note="attention fails")
    assert list(find_problems((absent,), (WHOLE,))) == []
    (problem,) = find_problems((broken,), (WHOLE,))
    assert problem.advice == "pip uninstall xformers: clipcond works without it"


CPUINFO = "model name\t: Some Xeon\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile amx_bf16 amx_int8\n"


def test_the_processor_is_read_from_linux(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    found = look_at_processor(tmp_path / "cpuinfo")
    assert found.name == "Some Xeon"
    assert found.flags == ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    assert found.bf16
    assert found.amx


def test_a_processor_that_nothing_describes(tmp_path):
    found = look_at_processor(tmp_path / "absent")
    assert found.flags == ()
    assert not found.bf16
    assert not found.amx
    assert found.cores >= 1


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_mode(monkeypatch, value, offline):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert machine.look_at_hub().offline is offline
