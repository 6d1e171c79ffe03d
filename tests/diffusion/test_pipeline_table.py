"""docs/pipelines.md names every class of the installed diffusers that reads CLIP, what becomes of it, and its proofs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from tiny_pipelines.assemble import PARTS, SAME_PARTS, VARIANTS

from clipcond.diffusion.pipeline_shapes import SHAPES

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(\w+)`(?: †)? \| (.*?) \|(?: (.*?) \| (.*?) \|)?", re.MULTILINE)
STALE = "python benchmarks/pipelines.py --write docs/pipelines.md"


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str, str]]:
    """The rows of the guide: class; shape or reason; the proofs of its text and of its picture."""
    guide = ROOT / "docs" / "pipelines.md"
    if not guide.is_file():
        pytest.skip("not in a checkout")
    return ROW.findall(guide.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The functions of the benchmark."""
    return runpy.run_path(str(ROOT / "benchmarks" / "pipelines.py"))


def test_every_class_that_reads_clip_is_in_the_table(
    rows: list[tuple[str, str, str, str]], script: dict[str, Any]
) -> None:
    found = [script["row"](each) for each in script["classes"]()]
    wanted = {(each.name, each.shape or each.reason) for each in found}
    wanted |= {(name, variant) for variant, (name, _, _) in VARIANTS.items()}
    assert {(name, said) for name, said, *_ in rows} == wanted, f"diffusers has other classes: {STALE}"


def test_each_family_and_variant_was_built_and_drew(rows: list[tuple[str, str, str, str]]) -> None:
    drew = {shape for _, shape, text, picture in rows if text and max(number(text), number(picture)) <= 1e-5}
    families = {*PARTS, *SAME_PARTS} & set(SHAPES)
    assert (families | {*VARIANTS}) - drew == {"editing-xl"}  # whose call refuses embeds, see the guide


def number(cell: str) -> float:
    plain = cell.replace("\N{NON-BREAKING HYPHEN}", "-")
    return float(plain) if re.fullmatch(r"[\de.-]+", plain) else float("inf")


def test_a_proof_is_short_in_the_table(script: dict[str, Any]) -> None:
    notes: dict[str, int] = {}
    proofs: list[tuple[str, float | str | None]]
    proofs = [("text", 0.0), ("text", 2.4e-7), ("long", 154), ("weights", 0.0), ("weights", 3.7e-4), ("weights", 0.16)]
    proofs += [("negative", None), ("images", "call"), ("offload", "RuntimeError: no")]
    proofs += [("long", "ValueError: 77"), ("weights", "ValueError: 77")]
    assert [script["_words"](*each, notes) for each in proofs] == [
        "0", "2e-7", "154", "none", "0.04%", "20%", "–", "call", "fails (1)", "fails (2)", "fails (2)",
    ]  # fmt: skip
    assert notes == {"RuntimeError: no": 1, "ValueError: 77": 2}
