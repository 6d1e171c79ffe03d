import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clipcond.train.batches import Batch
from clipcond.train.loop import train
from clipcond.train.objective import Objective


class Power:
    """‖w‖ to a power: a term of the weights alone."""

    shared = False

    def __init__(self, name, weights, power, apart):
        self.name, self.weights, self.power, self.apart = name, weights, power, apart

    def __call__(self, outputs):
        return (self.weights**self.power).sum()


@pytest.mark.parametrize("apart", [(False, False), (True, False), (True, True)])
def test_an_objective_adds_the_gradients_of_its_weighted_terms_and_names_their_values(apart):
    weights = torch.tensor([2.0, 3.0], requires_grad=True)
    terms = [(0.5, Power("square", weights, 2, apart[0])), (3.0, Power("cube", weights, 3, apart[1]))]
    batch = Batch(0, np.arange(1), np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2), np.int64), 0, None)
    losses = Objective(terms, towers=None).backward(batch)
    assert losses.terms == {"square": 13.0, "cube": 35.0}
    assert losses.total == pytest.approx(0.5 * 13 + 3 * 35)
    assert torch.allclose(weights.grad, 0.5 * 2 * weights + 3 * 3 * weights**2)


def test_the_log_names_every_term(config):
    train(config)
    steps = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    steps = [line for line in steps if "loss" in line]
    assert steps
    assert all(line["terms"] == {"contrastive": line["loss"]} for line in steps)
