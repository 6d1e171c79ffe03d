from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from clipcond.errors import ConfigError
from clipcond.score.retrieval import Retrieval
from clipcond.train import checkpoints, measuring
from clipcond.train.best import Best, combined_score
from clipcond.train.loop import train


def found(forth, back):
    return Retrieval(image_to_text={1: forth}, text_to_image={1: back}, images=10, texts=10)


def test_the_score_is_recall_times_what_general_prompts_kept():
    assert combined_score(found(0.5, 0.7), None) == pytest.approx(0.6)
    words = SimpleNamespace(measures=lambda: {"words": 0.1, "pooled": 0.5})
    assert combined_score(found(0.5, 0.7), words) == pytest.approx(0.54)
    pooled = SimpleNamespace(measures=lambda: {"pooled": 0.5})
    assert combined_score(found(0.5, 0.7), pooled) == pytest.approx(0.3)
    gone = SimpleNamespace(measures=lambda: {"words": 1.4})
    assert combined_score(found(1.0, 1.0), gone) == 0


def test_of_equal_scores_the_first_is_the_best_and_patience_counts_the_others():
    best = Best()
    assert [best.take(step, score) for step, score in ((2, 0.5), (4, 0.5), (6, 0.4), (8, 0.6), (10, 0.1))] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert (best.step, best.score, best.waited) == (8, 0.6, 1)
    assert best.exhausted(1)
    assert not best.exhausted(2)
    assert not best.exhausted(None)
    assert Best.of(best.to_dict()) == best


@pytest.fixture
def scores(monkeypatch):
    """Scores of steps, as if measured: the best at step 4; before the first step 0.2."""
    by_step = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.8, 5: 0.7, 6: 0.8, 7: 0.6, 8: 0.5, 9: 0.4}
    whole = measuring._measure

    def scripted(run):
        return whole(run)[0], by_step[run.step]

    monkeypatch.setattr(measuring, "_measure", scripted)
    return by_step


def model(out):
    return load_file(Path(out) / "model" / "open_clip_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def notes(said):
    return [line["note"] for line in said if line.get("event") == "note"]


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5}])
def test_the_model_is_that_of_the_best_evaluation(config, pairs_csv, scores, tmp_path, changes):
    config = replace(config, val_data=str(pairs_csv), eval_every=1, keep=1, save_every=100, **changes)
    said = []
    result = train(replace(config, keep_best=True), report=said.append)
    assert result.steps == 9
    kept = [path.name for path in checkpoints.existing(Path(config.out) / "checkpoints")]
    assert kept == ["step-00000004.pt", "step-00000009.pt"]
    assert notes(said)[-1].startswith("the model is that of step 4, whose score of 0.800 is the best")
    best = checkpoints.read(Path(config.out) / "checkpoints" / "step-00000004.pt")
    expected = {**best.model, **best.average}
    assert all(torch.equal(value, expected[name]) for name, value in model(config.out).items())
    last = checkpoints.read(Path(config.out) / "checkpoints" / "step-00000009.pt")
    assert not same(model(config.out), {**last.model, **last.average})
    assert result.retrieval is not None
    train(replace(config, keep_best=False))
    assert same(model(config.out), {**last.model, **last.average})


def test_a_run_ends_when_nothing_better_comes_and_a_resumed_one_at_the_same_step(config, pairs_csv, scores, tmp_path):
    config = replace(config, val_data=str(pairs_csv), eval_every=1, keep_best=True, patience=3, save_every=2)
    said = []
    whole = train(replace(config, out=str(tmp_path / "whole")), report=said.append)
    assert (whole.steps, whole.interrupted) == (7, False)
    assert "no better score in 3 measurements: the run ends at step 7 of 9; the best, 0.800, was at step 4" in notes(
        said
    )
    with pytest.raises(RuntimeError, match="killed"):
        train(config, report=killer(6))
    assert train(config).steps == 7
    assert same(model(config.out), model(tmp_path / "whole"))
    before = model(config.out)
    assert train(config).steps == 7
    assert same(model(config.out), before)
    assert train(replace(config, patience=4)).steps == 8


def killer(step):
    def report(line):
        if line["step"] == step and line.get("event") == "evaluation":
            raise RuntimeError("killed")

    return report


def test_a_best_that_is_gone_or_behind_the_start_is_said(config, pairs_csv, scores):
    config = replace(config, val_data=str(pairs_csv), eval_every=1, keep_best=True, keep=9)
    train(config)
    (Path(config.out) / "checkpoints" / "step-00000004.pt").unlink()
    said = []
    train(config, report=said.append)
    assert notes(said)[-1].endswith("step-00000004.pt is gone, which was the best; the model is that of step 9")


@pytest.mark.parametrize("changes", [{"keep_best": True}, {"patience": 2}])
def test_without_held_out_pairs_there_is_no_best(config, changes):
    with pytest.raises(ConfigError, match="keep_best and patience go by the held-out pairs"):
        replace(config, **changes)
    with pytest.raises(ConfigError, match="patience is 0, expected a number above 0"):
        replace(config, val_count=2, patience=0)
