import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipcond.errors import ConfigError
from clipcond.train.loop import train
from clipcond.train.pareto_picture import pareto_picture
from clipcond.train.wise_ft import AlphaPoint, choose, mixed, pareto


def points(*values):
    return tuple(AlphaPoint(alpha=alpha, recall=recall, drift=drift) for alpha, recall, drift in values)


def test_weights_are_mixed_number_by_number_and_the_ends_are_exact():
    before = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    after = {"a": torch.tensor([2.0, 6.0]), "n": torch.tensor(9)}
    assert mixed(before, after, 0.25)["a"].tolist() == [1.25, 3.0]
    assert mixed(before, after, 0.25)["n"] == 9
    assert mixed(before, after, 0.0) == before
    assert mixed(before, after, 1.0) == after


def test_the_least_drift_within_a_point_of_the_best_recall_is_chosen():
    swept = points((0.0, 0.10, 0.0), (0.5, 0.895, 0.02), (0.8, 0.90, 0.05), (1.0, 0.88, 0.3))
    assert choose(swept).alpha == 0.5
    assert choose(swept, slack=0.0).alpha == 0.8
    assert [point.alpha for point in pareto(swept)] == [0.0, 0.5, 0.8]


def test_the_picture_shows_every_point_and_rings_the_chosen_one():
    swept = points((0.0, 0.10, 0.0), (0.5, 0.895, 0.02), (1.0, 0.88, 0.3))
    picture = ElementTree.fromstring(pareto_picture(swept, swept[1]))
    circles = picture.findall("{http://www.w3.org/2000/svg}circle")
    ring = [each for each in circles if each.get("class") == "chosen"]
    dots = [each for each in circles if each.get("class") != "chosen"]
    assert len(dots) == 3
    assert [(each.get("cx"), each.get("cy")) for each in ring] == [(dots[1].get("cx"), dots[1].get("cy"))]
    assert all(0 <= float(each.get("cx")) <= 640 and 0 <= float(each.get("cy")) <= 400 for each in circles)
    assert float(dots[1].get("cy")) < float(dots[0].get("cy")), "more recall is higher"
    assert ElementTree.fromstring(pareto_picture(points((0.0, 0.5, 0.0), (1.0, 0.5, 0.0)), swept[0])) is not None


def weights(folder):
    return load_file(Path(folder) / "open_clip_model.safetensors")


def test_a_run_with_an_alpha_of_auto_measures_the_dial_and_writes_its_choice(config, pairs_csv, dual_folder, tmp_path):
    config = replace(
        config, target="sd15", val_data=str(pairs_csv), alpha="auto", steps=30, max_drift=10.0, lock_image=True
    )
    result = train(config)
    out = Path(config.out)
    document = json.loads((out / "alpha.json").read_text())
    assert [point["alpha"] for point in document["points"]] == [number / 10 for number in range(11)]
    assert document["points"][0]["drift"] == pytest.approx(0.0, abs=1e-9)
    assert document["points"][10]["drift"] > document["points"][3]["drift"] > 0
    assert (out / "alpha.svg").read_text().startswith("<svg")
    chosen = next(point for point in document["points"] if point["alpha"] == document["chosen"])
    found = result.retrieval
    assert (found.image_to_text[1] + found.text_to_image[1]) / 2 == pytest.approx(chosen["recall"])
    trained = train(replace(config, alpha="1", out=str(tmp_path / "one")))
    before, after, mine = (weights(each) for each in (dual_folder, trained.model, result.model))
    for name, value in mine.items():
        expected = before[name].float() + document["chosen"] * (after[name] - before[name].float())
        assert torch.allclose(value, expected, atol=1e-6), name


def test_the_start_has_the_bias_that_a_sigmoid_loss_gives_it(config):
    train(replace(config, loss="siglip", steps=3, alpha="0"))
    assert weights(Path(config.out) / "model")["logit_bias"] == -10


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"alpha": "half"}, "alpha is 'half', expected 'auto' or a number from 0 to 1"),
     ({"alpha": "1.5"}, "alpha is '1.5', expected"), ({"alpha": "nan"}, "alpha is 'nan', expected"),
     ({"alpha": "auto"}, "needs held-out pairs"), ({"alpha": "auto", "val_count": 3}, "and a target"),
     ({"alpha": "0.5", "init": "random"}, "init is 'random', which has none")],
)  # fmt: skip
def test_an_alpha_that_cannot_be_is_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **changes)
