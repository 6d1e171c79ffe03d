"""Figures of the code itself: circles of imports, function bodies, docstrings, writes by hand.

    python benchmarks/house.py [--root DIR] [--lines SEED]

--root: a checkout to measure, this one if not given.   --lines: print 20 lines of code picked at random with what is around
them hidden, for a reader who is asked in which room each one stands; then the answers.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import runpy
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPENERS = ("What", "Whether", "Where", "How")
MOST_LINES = 60
# a file written whole by other means than clipcond.files
EXEMPT = (
    "clipcond.files",
    "clipcond.images.tars",
)  # the writer itself; what unpacks into a temporary folder of its own
WRITES = re.compile(
    r"\.write_text\(|\.write_bytes\(|open\([^)]*[\"'][wx]b?[\"']|\bsave_file\(|\bmkstemp\(|os\.replace\("
)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function, inner ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, signature and docstring apart."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Yield the docstrings of classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
            text := ast.get_docstring(node)
        ):
            yield text


def figures(root: Path) -> dict[str, str]:
    """Return the figures of a checkout, by what they count."""
    graph = runpy.run_path(str(ROOT / "scripts" / "module_graph.py"))
    files = graph["modules"](root)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    circles = graph["circles"](graph["without_facade"](graph["graph"](files)))
    sizes = [(body_lines(f), f"{_short(name)}.{f.name}") for name, tree in trees.items() for f in functions(tree)]
    sizes.sort(reverse=True)
    texts = [text for tree in trees.values() for text in docstrings(tree)]
    asking = [text for text in texts if text.split()[0] in OPENERS]
    others = {name: path.read_text(encoding="utf-8") for name, path in files.items() if name not in EXEMPT}
    writes = [_short(name) for name, text in others.items() if WRITES.search(text)]
    return {
        "modules": str(len(files)),
        "circles of imports": f"{len(circles)} ({', '.join(str(len(each)) + ' modules' for each in circles) or 'none'})",
        "functions, median body": f"{len(sizes)}, {statistics.median(size for size, _ in sizes):.0f} lines",
        f"bodies over {MOST_LINES} lines": str(sum(size > MOST_LINES for size, _ in sizes)),
        "longest bodies": ", ".join(f"{name} {size}" for size, name in sizes[:3]),
        f"docstrings that open with {', '.join(OPENERS)}": f"{len(asking)} of {len(texts)} ({len(asking) / len(texts):.0%})",
        "modules that write files by hand": f"{len(writes)} ({', '.join(writes) or 'none'})",
    }


def _short(name: str) -> str:
    return name.removeprefix("clipcond.")


def quiz(root: Path, seed: int) -> None:
    """Print 20 lines of code, then where they stand."""
    graph = runpy.run_path(str(ROOT / "scripts" / "module_graph.py"))
    lines = [
        (line.strip(), f"{name}:{number}")
        for name, path in graph["modules"](root).items()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line.strip()) > 25 and not line.strip().startswith(("#", "from ", "import ", '"""'))
    ]
    picked = random.Random(seed).sample(lines, 20)
    for number, (line, _) in enumerate(picked, 1):
        print(f"{number:2}  {line}")
    print()
    for number, (_, place) in enumerate(picked, 1):
        print(f"{number:2}  {place}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--lines", type=int, metavar="SEED")
    options = parser.parse_args()
    if options.lines is not None:
        quiz(options.root, options.lines)
        return
    print("| | |\n|---|---|")
    for name, value in figures(options.root).items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
