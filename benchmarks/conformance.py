"""Tools beside clipcond, case by case, as the table of docs/conformance.md; and the numeric vectors.

    python benchmarks/conformance.py [--path FOLDER] [--note TEXT]     the table
    python benchmarks/conformance.py --write                           the table into docs/conformance.md
    python benchmarks/conformance.py --vectors                         tests/vectors/numeric.json anew

Tools that are not here are named as not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from clipcond import __version__
from clipcond.cli.conformance import described
from clipcond.errors import ModelError, ResourceMissing
from clipcond.files import write_file
from clipcond.workflows.conformance import NAMES, TOLERANCE, Conformance, ConformanceOptions, Outcome, run
from clipcond.workflows.conformance_cases import CASES
from clipcond.workflows.conformance_vectors import numeric_document

ROOT = Path(__file__).resolve().parent.parent
PAGE, VECTORS = ROOT / "docs" / "conformance.md", ROOT / "tests" / "vectors" / "numeric.json"
_BEGIN, _END = "<!-- made by benchmarks/conformance.py -->", "<!-- end -->"


def compared(path: Path | None) -> tuple[list[Conformance], dict[str, str]]:
    """What came of each tool that is here, and why each other one is not."""
    found, missing = [], {}
    for name in NAMES:
        try:
            found.append(run(ConformanceOptions(name, path)))
        except (ResourceMissing, ModelError) as error:
            missing[name] = str(error)
    return found, missing


def table(found: Sequence[Conformance], missing: dict[str, str], note: str) -> str:
    """The table of cases and tools, what differs in words, and what was not run."""
    names = [f"{each.tool} {each.version or ''}".strip() for each in found]
    outcomes = [{outcome.case: outcome for outcome in each.outcomes} for each in found]
    lines = [
        f"{datetime.date.today()}, `python benchmarks/conformance.py --write`: clipcond {__version__}, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "diffusers"))
        + f". Same: to {TOLERANCE:g} in all states of both sides. {note}".rstrip(),
        "",
        f"| case | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {case.name} | {' | '.join(_cell(each.get(case.name)) for each in outcomes)} |" for case in CASES),
        "| **same of all** | "
        + " | ".join(f"**{each.count('same')} of {len(each.outcomes)}**" for each in found)
        + " |",
        "",
    ]
    for each in found:
        lines += [f"- {each.tool}, {_code(o)}: {described(o)}" for o in each.outcomes if o.verdict != "same"]
    lines += [f"- {why.replace(' is not there: ', ' was not run here; to run it: ')}" for why in missing.values()]
    return "\n".join(lines)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "–"
    if outcome.verdict == "differs":
        return f"**differs**, {outcome.difference:.1g}" if outcome.lengths is None else "**differs**, length"
    return outcome.verdict if outcome.verdict == "same" else "**cannot**"


def _code(outcome: Outcome) -> str:
    shown = outcome.prompt if len(outcome.prompt) < 60 else f"{outcome.prompt[:40]}…"
    return f"{outcome.case} (`{shown}`)"


def _vectors() -> None:
    document = numeric_document()
    rows = ",\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in document.pop("vectors"))
    head = json.dumps(document, ensure_ascii=False, indent=2).removesuffix("\n}")
    write_file(VECTORS, f'{head},\n  "vectors": [\n{rows}\n  ]\n}}\n'.encode(), overwrite=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--path", type=Path, help="a folder with tools that are not installed")
    options.add_argument("--note", default="", help="a sentence on tools that tell no version")
    options.add_argument("--write", action="store_true", help="put the table into docs/conformance.md")
    options.add_argument("--vectors", action="store_true", help="write tests/vectors/numeric.json and nothing else")
    given = options.parse_args()
    if given.vectors:
        _vectors()
        return 0
    made = table(*compared(given.path), given.note)
    if not given.write:
        print(made)
        return 0
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    write_file(PAGE, f"{before}{_BEGIN}\n{made}\n{_END}{rest.split(_END)[1]}".encode(), overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
