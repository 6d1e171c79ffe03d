import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clipcond.score.retrieval import text_margins
from clipcond.train.data import read_pairs
from clipcond.train.evaluate import gallery
from clipcond.train.loop import train
from clipcond.train.shown_pairs import keep_before, write_pairs


def margins_of(scores, right, block=1024):
    """Margins of M texts with N images of these cosines: (N, M), of unit images that are the axes."""
    return text_margins(torch.eye(len(scores)), torch.tensor(scores, dtype=torch.float32).T, right, block=block)


@pytest.mark.parametrize("block", [1, 1024])
def test_margins_are_the_best_right_against_the_best_wrong(block):
    scores = [[0.9, 0.1, 0.5], [0.2, 0.3, 0.6], [0.4, 0.8, 0.6]]
    found = margins_of(scores, (np.array([0, 2, 1, 1]), np.array([0, 1, 1, 2])), block)
    assert found.rank.tolist() == [0, 0, 1]
    assert found.right == pytest.approx([0.9, 0.8, 0.6])
    assert found.right_image.tolist() == [0, 2, 1]
    assert found.wrong == pytest.approx([0.4, 0.1, 0.6])
    assert found.wrong_image.tolist() == [2, 0, 2]
    assert found.margin == pytest.approx([0.5, 0.7, 0.0])


def test_the_worst_and_the_best_are_written_with_pictures_and_ranks_before(pairs_csv, tmp_path):
    of = gallery(read_pairs(pairs_csv))
    draw = np.random.default_rng(3)
    scores = draw.random((len(of.rows), len(of.texts))).astype(np.float32)
    margins = margins_of(scores, of.right)
    keep_before(tmp_path, margins)
    write_pairs(tmp_path, of, margins)
    found = json.loads((tmp_path / "pairs.json").read_text())
    order = np.argsort(margins.margin)
    assert [pair["caption"] for pair in found["worst"]] == [of.texts[n] for n in order[:6]]
    assert [pair["caption"] for pair in found["best"]] == [of.texts[n] for n in order[::-1][:6]]
    assert all(pair["rank"] == pair["rank_before"] for pair in found["worst"] + found["best"])
    assert all(pair["picture"]["uri"].startswith("data:image/jpeg;base64,") for pair in found["worst"])
    (tmp_path / "pairs.json").write_text('{"before": [1, 2]}')
    write_pairs(tmp_path, of, margins)
    assert json.loads((tmp_path / "pairs.json").read_text())["worst"][0]["rank_before"] is None


def test_a_run_with_held_out_pairs_leaves_its_pairs_with_the_ranks_of_the_start(config, pairs_csv):
    config = replace(config, val_data=str(pairs_csv), steps=60, batch_size=12, learning_rate=3e-3)
    train(config)
    found = json.loads((Path(config.out) / "pairs.json").read_text())
    pairs = found["worst"] + found["best"]
    assert (found["images"], len(pairs)) == (24, 12)
    assert np.mean([pair["rank"] for pair in found["best"]]) < np.mean([pair["rank_before"] for pair in found["best"]])
