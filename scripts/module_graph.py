"""Which module of clipcond imports which, those inside functions and under TYPE_CHECKING counted; and the circles among them.

python scripts/module_graph.py            the circles; exits 1 if there is one
python scripts/module_graph.py --rooms    which room imports which
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "clipcond"
Graph = Mapping[str, frozenset[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return every module by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(files: Mapping[str, Path]) -> dict[str, frozenset[str]]:
    """Return the modules that each module imports, wherever the import stands."""
    return {name: frozenset(_imported(path, files)) - {name} for name, path in files.items()}


def _imported(path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "") in files:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in files else str(node.module)


def circles(imports: Graph) -> list[list[str]]:
    """Return the groups of modules that reach one another (strongly connected, by Tarjan), each sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in imports[name]:
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in imports:
        if name not in order:
            visit(name)
    return sorted(found)


def without_facade(imports: Graph) -> dict[str, frozenset[str]]:
    """Return the graph without the façade's table for editors, which names every room and runs nothing of it."""
    return {name: others - {PACKAGE} for name, others in imports.items() if name != PACKAGE}


def rooms(imports: Graph) -> dict[str, set[str]]:
    """Return the rooms that each room imports from: a room is a folder or a file directly in the package."""
    found: dict[str, set[str]] = {}
    for name, others in without_facade(imports).items():
        room = name.split(".")[1]
        found.setdefault(room, set()).update(other.split(".")[1] for other in others if "." in other)
        found[room].discard(room)
    return found


def main() -> int:
    imports = graph(modules())
    if "--rooms" in sys.argv[1:]:
        for room, others in sorted(rooms(imports).items()):
            print(f"{room}: {', '.join(sorted(others)) or 'nothing'}")
        return 0
    found = circles(imports)
    for group in found:
        print("circle:", ", ".join(group))
    print(f"{len(imports)} modules, {sum(map(len, imports.values()))} imports, {len(found)} circles")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
