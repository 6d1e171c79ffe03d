"""The rooms: no circle of imports, lazy ones counted too; files are written by one module; functions stay short."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GRAPH: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "module_graph.py"))
HOUSE: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "house.py"))


def test_no_module_imports_itself_over_others() -> None:
    imports = GRAPH["graph"](GRAPH["modules"]())
    assert len(imports) > 100
    assert GRAPH["circles"](imports) == []


@pytest.mark.parametrize("inner", ["    from clipcond.b import f", "if TYPE_CHECKING:\n    import clipcond.b"])
def test_a_circle_of_lazy_imports_is_found(tmp_path: Path, inner: str) -> None:
    package = tmp_path / "clipcond"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(f"def g():\n{inner}\n" if inner.startswith(" ") else inner)
    (package / "b.py").write_text("import clipcond.c\n")
    (package / "c.py").write_text("from clipcond import a\n")
    found = GRAPH["circles"](GRAPH["graph"](GRAPH["modules"](tmp_path)))
    assert found == [["clipcond.a", "clipcond.b", "clipcond.c"]]


def test_functions_and_docstrings_keep_the_rules_of_the_house() -> None:
    figures = HOUSE["figures"](ROOT)
    assert figures["bodies over 60 lines"] == "0", figures["longest bodies"]
    assert figures["modules that write files by hand"] == "0 (none)"
    (opening,) = [value for name, value in figures.items() if name.startswith("docstrings")]
    assert opening.startswith("0 of "), opening
