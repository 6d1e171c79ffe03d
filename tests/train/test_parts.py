import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipcond.train import stored
from clipcond.train.loop import train
from clipcond.train.parts import Parts, Place

ROWS = torch.arange(40, dtype=torch.float32).reshape(20, 2)


class Compute:
    """The rows of a table; an interruption before the row `stop`."""

    def __init__(self, stop=99, table=ROWS):
        self.stop, self.table, self.asked = stop, table, []

    def __call__(self, rows):
        self.asked.append(rows.start)
        if rows.start >= self.stop:
            raise KeyboardInterrupt
        return self.table[rows].clone()


def place(folder, **changes):
    return Place(**{"folder": folder, "fingerprints": {"data": "a"}, **changes})


def test_an_interruption_keeps_whole_groups_and_the_next_run_computes_the_rest(tmp_path):
    first = Parts(place(tmp_path / "stored"), "features")
    with pytest.raises(KeyboardInterrupt):
        first.fill(20, 6, Compute(stop=12))
    assert first.kept == 12
    compute = Compute()
    again = Parts(place(tmp_path / "stored"), "features")
    assert torch.equal(again.fill(20, 6, compute), ROWS)
    assert compute.asked == [0, 12, 18], "the first group is what the kept rows are held against"
    compute = Compute()
    assert torch.equal(Parts(place(tmp_path / "stored"), "features").fill(20, 6, compute), ROWS)
    assert compute.asked == [0]
    again.remove()
    assert not (tmp_path / "stored").exists()


def test_an_interruption_in_the_first_group_keeps_nothing(tmp_path):
    parts = Parts(place(tmp_path / "stored"), "features")
    with pytest.raises(KeyboardInterrupt):
        parts.fill(20, 6, Compute(stop=0))
    assert parts.kept == 0
    assert not (tmp_path / "stored").exists()


@pytest.mark.parametrize(
    "other", [{"table": ROWS + 1}, {"fingerprints": {"data": "b"}}, {"damage": True}], ids=["model", "data", "torn"]
)
def test_rows_of_another_model_or_of_other_pairs_and_torn_ones_are_not_taken(tmp_path, other):
    with pytest.raises(KeyboardInterrupt):
        Parts(place(tmp_path), "features").fill(20, 6, Compute(stop=12))
    if other.pop("damage", False):
        path = tmp_path / "features-00000000.safetensors"
        path.write_bytes(path.read_bytes()[:50])
    table = other.pop("table", ROWS)
    compute = Compute(table=table)
    assert torch.equal(Parts(place(tmp_path, **other), "features").fill(20, 6, compute), table)
    assert compute.asked == [0, 6, 12, 18]


def test_a_process_that_only_reads_writes_and_deletes_nothing(tmp_path):
    reader = Parts(place(tmp_path, writes=False), "features")
    assert torch.equal(reader.fill(20, 6, Compute()), ROWS)
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        Parts(place(tmp_path), "features").fill(20, 6, Compute(stop=12))
    kept = list(tmp_path.iterdir())
    Parts(place(tmp_path, writes=False), "features").fill(20, 6, Compute(table=ROWS + 1))
    assert list(tmp_path.iterdir()) == kept


def test_a_run_that_is_stopped_while_it_stores_goes_on_from_there(config, tmp_path, monkeypatch):
    config = replace(config, lock_image=True)
    monkeypatch.setattr(stored, "_GROUP", 8)
    whole = replace(config, out=str(tmp_path / "whole"))
    train(whole)
    assert not (Path(whole.out) / "stored").exists(), "of a run that is done nothing would read it"
    real, asked = stored.prepare_all, []

    def interrupting(sources, preprocess):
        asked.append(len(sources))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(sources, preprocess)

    monkeypatch.setattr(stored, "prepare_all", interrupting)
    result = train(config)
    assert (result.steps, result.interrupted, result.model, result.kept) == (0, True, None, "features: 16 rows")
    last = json.loads((Path(config.out) / "log.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["kept"]) == ("interrupted", "features: 16 rows")
    assert train(config).steps == 9
    assert asked == [8, 8, 8, 8, 8], "two groups, the interruption, then the first again and the last"
    one, other = (load_file(Path(each.out) / "model" / "open_clip_model.safetensors") for each in (config, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)
