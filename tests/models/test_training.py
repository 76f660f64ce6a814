"""What all trainings share: batches made ahead are those made on the spot."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from models.training import batches


@dataclass(frozen=True)
class Programme:
    steps: int = 7
    warmup_steps: int = 1
    learning_rate: float = 1e-3
    last_learning_rate: float = 1e-5
    gradient_clip: float = 1.0
    ema_decay: float = 0.9
    checkpoint_every: int = 5


@dataclass(frozen=True)
class Batch:
    step: int
    x: torch.Tensor


class Steps:
    def batch(self, step: int, training: Programme) -> Batch:
        return Batch(step, torch.full((3,), float(step)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_from_the_first_step_asked_for(workers):
    found = list(batches(Steps(), Programme(), first=3, workers=workers))
    assert [batch.step for batch in found] == [3, 4, 5, 6]
    assert [float(batch.x[0]) for batch in found] == [3, 4, 5, 6]


def test_nothing_is_left_of_a_training_that_is_done():
    assert list(batches(Steps(), Programme(), first=7, workers=0)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_who_makes_the_batches_does_not_change_what_torch_draws(workers):
    torch.manual_seed(5)
    untouched = torch.rand(4)
    torch.manual_seed(5)
    list(batches(Steps(), Programme(), first=0, workers=workers))
    assert torch.equal(torch.rand(4), untouched)
