"""The façade is one table; editors and mypy see the same names."""

from __future__ import annotations

import ast
import types
from pathlib import Path

import pytest

import clipcond

_TREE = ast.parse(Path(clipcond.__file__).read_text("utf-8"))


def static_names() -> dict[str, str]:
    """name -> module, as the TYPE_CHECKING block imports them."""
    (block,) = [
        node
        for node in _TREE.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    names = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name, "`import x as x` is what re-exports for mypy"
            names[alias.name] = node.module
    return names


def test_the_table_equals_the_static_block() -> None:
    static = static_names()
    assert {name: home for name, home in static.items() if name not in clipcond._MODULES} == clipcond._HOME
    assert set(clipcond._MODULES) <= set(static)


def test_all_lists_every_name_once() -> None:
    assert sorted(clipcond.__all__) == sorted({*clipcond._HOME, *clipcond._MODULES, "__version__"})
    assert list(clipcond._HOME) == sorted(clipcond._HOME)
    assert list(clipcond._MODULES) == sorted(clipcond._MODULES)
    assert dir(clipcond) == sorted(clipcond.__all__)


@pytest.mark.parametrize("name", sorted(clipcond._HOME))
def test_every_name_is_there(name: str) -> None:
    value = getattr(clipcond, name)
    assert value.__module__.startswith("clipcond.")
    assert value.__name__ == name
    assert vars(clipcond)[name] is value


@pytest.mark.parametrize("name", ["rerank", "train"])
def test_two_packages_can_be_called(name: str) -> None:
    package = getattr(clipcond, name)
    assert isinstance(package, types.ModuleType)
    assert callable(package)


def test_mini_is_a_module_with_a_path() -> None:
    assert isinstance(clipcond.mini, types.ModuleType)
    assert callable(clipcond.mini.path)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'clipcond' has no attribute 'nonsense'"):
        clipcond.nonsense  # noqa: B018
