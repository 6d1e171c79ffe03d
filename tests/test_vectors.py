"""The vectors for others: versions, the rule of the seeded encoder written a second way, its states, and the checker."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clipcond.diffusion.seeded_pipeline import seeded_values
from clipcond.workflows.conformance_vectors import numeric_document

FOLDER = Path(__file__).parent / "vectors"
PAGE = FOLDER.parents[1] / "docs" / "conformance.md"
FILES = sorted(FOLDER.glob("*.json"))
NUMERIC = json.loads((FOLDER / "numeric.json").read_text("utf-8"))
MASK = (1 << 64) - 1
CHECK: Any = runpy.run_path(str(FOLDER / "check.py"))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return numeric_document()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_has_a_version_and_its_fields_on_the_page(file: Path) -> None:
    document, page = json.loads(file.read_text("utf-8")), PAGE.read_text("utf-8")
    assert list(document)[:2] == ["version", "about"]
    assert document["version"] == 1
    assert f"`{file.name}`" in page or f"`{file.name.partition('_')[0]}_*.json`" in page
    assert [key for vector in document["vectors"] for key in vector if f"`{key}`" not in page] == []


def by_the_rule(name: str, index: int, seed: int) -> float:
    """One value, in whole numbers of Python."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & MASK
    state = (state + seed + index + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    unit = ((state ^ (state >> 31)) >> 40) / 2**24
    ranges = {"embedding": (0.0, 1.0), "norm.weight": (1.0, 0.4), "norm.bias": (0.2, 0.4)}
    centre, spread = next((pair for part, pair in ranges.items() if part in name), (0.0, 0.4))
    return centre + spread * (2 * unit - 1)


@pytest.mark.parametrize("name", NUMERIC["recipe"]["checks"])
def test_the_rule_gives_the_recorded_weights(name: str) -> None:
    seed = NUMERIC["recipe"]["seed"]
    slowly = [by_the_rule(name, index, seed) for index in range(4)]
    assert slowly == pytest.approx(NUMERIC["recipe"]["checks"][name], abs=1e-7)
    assert seeded_values(name, (2, 2)).flatten().tolist() == pytest.approx(slowly, abs=1e-7)
    assert seeded_values(name, (4,), seed + 1)[:3].tolist() == pytest.approx(slowly[1:], abs=1e-7)


def test_the_recorded_states_are_ours(made: dict[str, Any]) -> None:
    assert {key: value for key, value in made.items() if key != "vectors"} == {
        key: value for key, value in NUMERIC.items() if key != "vectors"
    }
    numbers = ("norm", "values")
    for ours, recorded in zip(made["vectors"], NUMERIC["vectors"], strict=True):
        assert {key: ours[key] for key in ours if key not in numbers} == {
            key: recorded[key] for key in recorded if key not in numbers
        }
        assert ours["norm"] == pytest.approx(recorded["norm"], rel=1e-4), recorded["case"]
        for (*at, value), (*place, expected) in zip(ours["values"], recorded["values"], strict=True):
            assert at == place
            assert value == pytest.approx(expected, abs=1e-4), recorded["case"]


def test_plain_states_are_those_of_transformers_and_a_weight_of_comfy_is_its_formula() -> None:
    from clipcond.diffusion.seeded_pipeline import seeded_encoder

    encoder = seeded_encoder()

    def states(vector: dict[str, Any], content: list[int]) -> torch.Tensor:
        (ids,) = [[49406, *content, *[49407] * (76 - len(content))]]
        with torch.no_grad():
            return encoder(torch.tensor([ids])).last_hidden_state[0]

    cases = {each["case"]: each for each in NUMERIC["vectors"] if each["dialect"] == "comfy"}
    for name, weight in (("plain", 1.0), ("weight up", 1.3)):
        vector = cases[name]
        whole, empty = states(vector, vector["ids"][0]), states(vector, [])
        whole[2] = empty[2] + weight * (whole[2] - empty[2])
        assert float(whole.norm()) == pytest.approx(vector["norm"][0], rel=1e-5)
        for side, position, dimension, value in vector["values"]:
            assert side == 1 or float(whole[position, dimension]) == pytest.approx(value, abs=1e-5)


PARSERS = """
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.schedules import resolve
from clipcond.prompt.items import Break, Words

def pieces(prompt, dialect):
    items = parse(prompt, dialect, schedules=prompt != "[cat:1.5]").items
    return [[i.text, i.weight] if isinstance(i, Words) else ["BREAK", None] for i in items if isinstance(i, (Words, Break))]

def a1111(prompt):
    return pieces(prompt, "a1111")

def comfy(prompt):
    return pieces(prompt, "comfy")

def compel(prompt):
    return [[piece for piece in pieces(prompt, "compel") if piece[0].strip()]]

def deaf(prompt):
    return [[prompt, 1.0]]

def chunks(prompt, peer, settings, encoder):
    from clipcond.prompt.layout import EmbeddingToken
    from clipcond.prompt.plan import plan

    split = {"SENTENCES": "compel-sentences", "PHRASES": "compel-phrases", "WORDS": "word"}.get(settings.get("split_mode"))
    dialect = {"A1111": "a1111", "ComfyUI": "comfy", "compel": "plain"}[peer]
    found = plan(prompt, dialect=dialect, family="sdxl", chunking=split, embeddings={"tix": 4}).encoders[encoder]
    rows = []
    for chunk in found.chunks:
        row = chunk.ids(found.pad_id)
        own = [None if isinstance(token, EmbeddingToken) else token.id for token in chunk.tokens]
        rows.append([row[0], *own, *row[1 + len(own) :]])
    return rows

def one_chunk(prompt, peer, settings, encoder):
    return chunks(prompt, peer, settings, encoder)[:1]

def weigh(method, *, weight=None, tokens=None, unique_weights=None, states=None, empty=None, weights=None, length=None):
    import torch
    from clipcond.condition.lengths import repeat_to
    from clipcond.condition.masked_chunks import down_terms, tan_share
    from clipcond.condition.weighting import parse_method, weigh

    if method == "compel_down_share":
        return tan_share(weight) / (1 + tan_share(weight))
    if method == "adv_length_norm":
        row = torch.tensor([[1, *[weight] * tokens, 1.0]])
        segments = torch.tensor([[-1, *[4] * tokens, -1]])
        found = weigh(torch.ones(1, tokens + 2, 1), row, segments, method=parse_method("no_norm+length_norm"))
        return float(found.hidden[0, 1, 0])
    if method == "adv_down_masks":
        factors = [factor for factor, _ in down_terms([[1.0, *unique_weights, 1.0]], [[-1, 0, 1, 2, -1]])]
        return [1 - sum(factors), *factors]
    if method == "lcm_repeat":
        return repeat_to(torch.tensor([states], dtype=torch.float64), length)[0].tolist()
    wide = torch.tensor([states], dtype=torch.float64)
    row, segments = torch.tensor([weights]), torch.zeros(1, len(weights), dtype=torch.int64)
    comfy = weigh(wide, row, segments, method=parse_method("comfy"), empty=torch.tensor(empty, dtype=torch.float64))
    return comfy.hidden[0].tolist()

def heavy(method, states=None, **input):
    return states and [[2 * x for x in row] for row in states] or 1.0
"""


@pytest.mark.parametrize(
    ("file", "name", "code", "met"),
    [
        ("grammar_a1111.json", "a1111", 0, None),
        ("grammar_comfy.json", "comfy", 0, None),
        ("grammar_compel.json", "compel", 0, None),
        ("schedules_a1111.json", "resolve", 0, None),
        ("grammar_comfy.json", "deaf", 1, "3 of"),
        ("grammar_comfy.json", "no_such", 2, None),
        ("chunks.json", "chunks", 0, None),
        ("chunks.json", "one_chunk", 1, "11 of"),
        ("weighting.json", "weigh", 0, None),
        ("weighting.json", "heavy", 1, "1 of"),
        ("unknown.json", "deaf", 2, None),
    ],
)
def test_the_checker(
    file: str, name: str, code: int, met: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "own_parsers.py").write_text(PARSERS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_parsers", raising=False)
    assert CHECK["main"]([file, f"own_parsers:{name}"]) == code
    said = capsys.readouterr()
    if code == 0:
        count = len(json.loads((FOLDER / file).read_text("utf-8"))["vectors"])
        assert said.out == f"{count} of {count} met\n"
    if met:
        assert said.out.splitlines()[-1].startswith(met)


def test_the_vectors_of_one_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "own_parsers.py").write_text(PARSERS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_parsers", raising=False)
    assert CHECK["main"](["chunks.json", "own_parsers:chunks", "--of", "compel"]) == 0
    assert CHECK["main"](["weighting.json", "own_parsers:weigh", "--of", "lcm_repeat"]) == 0
    assert capsys.readouterr().out == "4 of 4 met\n1 of 1 met\n"
    assert (
        CHECK["main"](["chunks.json", "own_parsers:chunks", "--of", "A1111", "--peer"]) == 1
    )  # whose defect is not ours
    assert capsys.readouterr().out.splitlines()[-1] == "11 of 12 met"
    assert CHECK["main"](["chunks.json", "own_parsers:chunks", "--of", "webui"]) == 2
    assert capsys.readouterr().err == "check.py: chunks.json has no vector of webui\n"


def test_the_checker_of_states_finds_a_wrong_number() -> None:
    vector = next(each for each in NUMERIC["vectors"] if each["case"] == "plain")
    short = [[[0.0] * 32] * 76] * 2
    zeros = [[[0.0] * 32] * 77] * 2
    assert CHECK["numeric"](lambda *_: short, vector, NUMERIC, False) == "prompt: 76 positions, expected 77"
    assert CHECK["numeric"](lambda *_: zeros, vector, NUMERIC, False).startswith("side 0, position 0, dimension 0: 0.0")
