"""What all trainings share: batches made ahead are those made on the spot; checkpoints are whole, and of this run."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.contract import ModelError
from models.training import TrainingRun, batches, read_checkpoint, write_checkpoint


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


class Run(TrainingRun[nn.Linear, Batch, Programme]):
    """A line; from the step `breaks` on the loss is no number."""

    def __init__(self, programme: Programme, *, breaks: int = 99) -> None:
        def adam(network: nn.Linear, training: Programme) -> torch.optim.Optimizer:
            return torch.optim.Adam(network.parameters(), training.learning_rate)

        super().__init__(lambda: nn.Linear(3, 1), adam, programme, seed=1, device=torch.device("cpu"))
        self.breaks = breaks

    def loss(self, batch: Batch) -> Tensor:
        return self.network(batch.x).square().sum() * (torch.nan if batch.step >= self.breaks else 1)


def nobody(_what: str, _done: int, _total: int, _loss: float) -> None:
    pass


@contextmanager
def no_file_larger_than(octets: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_loss_that_is_no_number_ends_the_training_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.pt"
    with pytest.raises(ModelError, match="not finite after 6 steps"):
        Run(Programme(), breaks=6).fit(Steps(), checkpoint, nobody)
    sound = Run(Programme())
    sound.load(checkpoint)
    assert sound.step == 5
    assert all(tensor.isfinite().all() for tensor in sound.network.state_dict().values())


def test_a_checkpoint_for_which_there_is_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.pt"
    write_checkpoint({"step": 1}, checkpoint)
    with no_file_larger_than(20_000), pytest.raises(OSError, match="File too large"):
        write_checkpoint({"step": 2, "much": torch.zeros(100_000)}, checkpoint)
    assert read_checkpoint(checkpoint) == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("content", [b"", b"hello", b"half"])
def test_a_damaged_checkpoint_is_said_by_name(tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "c.pt"
    write_checkpoint({"much": torch.zeros(1000)}, checkpoint)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(ModelError, match=r"c\.pt is no checkpoint, or damaged"):
        Run(Programme()).load(checkpoint)


def test_a_run_may_end_later_than_its_checkpoint_and_never_before_it(tmp_path: Path) -> None:
    """Weights of seven steps would be told to be of six."""
    checkpoint = tmp_path / "c.pt"
    Run(Programme()).fit(Steps(), checkpoint, nobody)
    Run(replace(Programme(), steps=8)).load(checkpoint)
    with pytest.raises(ModelError, match="7 steps behind it, more than the 6 asked for"):
        Run(replace(Programme(), steps=6)).load(checkpoint)
