"""The blazons that benchmarks/domain_training.py teaches: they say the whole scene, in words that the model does not know."""

import random
import runpy
from pathlib import Path

import pytest

from clipcond.mini import world
from clipcond.models.load import load_dual
from clipcond.prompt.tokenizer import batch_ids

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "blazon.py"
if not FILE.is_file():
    pytest.skip("benchmarks/ is not part of an installed clipcond", allow_module_level=True)
BLAZON = runpy.run_path(str(FILE))


def read(text):
    """A blazon read back by its words alone: longest places first, so that `in chief` is not found in `in dexter chief`."""
    meanings = {**{word: ("colour", name) for name, word in BLAZON["TINCTURES"].items()},
                **{word: ("shape", name) for name, word in BLAZON["CHARGES"].items()},
                **{word: ("cell", name) for name, word in BLAZON["PLACES"].items()}}  # fmt: skip
    found, rest = [], text.replace(";", ",").replace(",", " ")
    while rest:
        rest = rest.strip()
        word = next((each for each in sorted(meanings, key=len, reverse=True) if rest.startswith(each)), None)
        if word is not None:
            found.append(meanings[word])
        rest = rest[len(word) :] if word else rest.partition(" ")[2]
    return [dict(found[at : at + 3]) for at in range(0, len(found), 3)]


def test_a_blazon_says_every_object_and_the_field():
    for seed in range(60):
        rng = random.Random(seed)
        scene = world.sample(rng)
        text = BLAZON["blazon"](scene, rng)
        assert read(text) == [{"colour": o.colour, "shape": o.shape, "cell": o.cell} for o in scene.objects], text
        assert BLAZON["FIELDS"][scene.background] in text
        assert " a annulet" not in text


def test_the_tables_name_all_that_a_scene_can_hold_and_differ():
    for table, names in (
        ("TINCTURES", world.COLOURS), ("CHARGES", world.LAYOUTS), ("PLACES", world.CELLS), ("FIELDS", world.BACKGROUNDS),
    ):  # fmt: skip
        assert set(BLAZON[table]) == set(names)
        assert len(set(BLAZON[table].values())) == len(names)


def test_the_embedded_model_knows_none_of_the_words_but_cross():
    tower = load_dual("mini").text
    words = [
        *BLAZON["TINCTURES"].values(),
        *BLAZON["CHARGES"].values(),
        "dexter",
        "sinister",
        "chief",
        "fess",
        "base",
        "flank",
    ]
    known = [word for word, ids in zip(words, batch_ids(words), strict=True) if not set(ids) <= tower.untrained(ids)]
    assert known == ["cross"]
