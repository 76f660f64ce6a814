"""What every training has: a schedule, a smoothed network, a smoothed loss, a checkpoint that is whole or not there."""

from __future__ import annotations

import io
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from models.contract import ModelError
from models.weights import write_whole

OnProgress = Callable[[str, int, int, float], None]
"""Called with what is being done, steps done, steps in all, and the loss of late (NaN while data are made)."""

SMOOTHING = 0.99
AHEAD = 4
"""Batches that each worker keeps ready."""


class Length(Protocol):
    """How many steps."""

    @property
    def steps(self) -> int: ...


class Schedule(Length, Protocol):
    """What the learning rate follows from."""

    @property
    def warmup_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def last_learning_rate(self) -> float: ...


class Programme(Schedule, Protocol):
    """What one training is told beside its data."""

    @property
    def gradient_clip(self) -> float: ...
    @property
    def ema_decay(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...


Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")
Given = TypeVar("Given", bound=Programme)
_Batch = TypeVar("_Batch", covariant=True)
_Given = TypeVar("_Given", bound=Programme, contravariant=True)


class Store(Protocol[_Batch, _Given]):
    """Batches that follow from the number of the step alone."""

    def batch(self, step: int, training: _Given, /) -> _Batch: ...


class _Steps(Dataset[Any]):
    """The batches of a training, by how many steps after the first."""

    def __init__(self, store: Store[Any, Any], training: Length, first: int) -> None:
        self._store, self._training, self._first = store, training, first

    def __len__(self) -> int:
        return max(self._training.steps - self._first, 0)

    def __getitem__(self, index: int) -> Any:
        return self._store.batch(self._first + index, self._training)


def batches(store: Store[Any, Any], training: Length, *, first: int, workers: int) -> Iterator[Any]:
    """The batches from step `first` on, in order, the same whoever makes them.

    workers     processes that make them ahead of time; 0: this one, when they are asked for
    """
    steps = _Steps(store, training, first)
    if not workers:
        yield from (steps[index] for index in range(len(steps)))
        return
    # A generator of its own: what a loss draws from torch's does not depend on the number of workers.
    own = torch.Generator()
    yield from DataLoader(steps, batch_size=None, num_workers=workers, prefetch_factor=AHEAD, generator=own)


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then half a cosine."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    span = max(schedule.steps - schedule.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * (step - schedule.warmup_steps) / span)) / 2
    return schedule.last_learning_rate + (schedule.learning_rate - schedule.last_learning_rate) * cosine


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, *, step: int | None = None) -> None:
    """Move the averaged parameters towards the network's.

    step    of the training: early on the average follows closely, so that a short run is not left with its first steps
    """
    if step is not None:
        decay = min(decay, (1 + step) / (10 + step))
    for smoothed, now in zip(average.parameters(), network.parameters(), strict=True):
        smoothed.lerp_(now, 1 - decay)


def smoothed_loss(before: float, loss: float, smoothing: float = SMOOTHING) -> float:
    """The loss of late; NaN before there is any."""
    return loss if math.isnan(before) else smoothing * before + (1 - smoothing) * loss


def write_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all: an interrupted run leaves the checkpoint before. raises OSError: no room too"""
    content = io.BytesIO()  # torch's own writer tells of a full disk as of a defect
    torch.save(dict(state), content)
    write_whole(content.getbuffer(), path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU: an optimiser's step counters on a GPU would make each step wait.

    raises   ModelError     damaged, or no checkpoint
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is no checkpoint, or damaged: begin afresh, or take it away") from error


def hold_to(state: Mapping[str, Any], same: Mapping[str, object], length: Length) -> None:
    """Whether a checkpoint may go on.

    same     what it must share with this run
    raises   ModelError     it is of another run, or has gone beyond this one's end
    """
    if others := [name for name, value in same.items() if state.get(name) != value]:
        differs = " and another ".join(others)
        raise ModelError(f"the checkpoint belongs to a run with another {differs}: begin afresh, or in another folder")
    if state["step"] > length.steps:
        raise ModelError(f"the checkpoint has {state['step']} steps behind it, more than the {length.steps} asked for")


class TrainingRun(ABC, Generic[Network, Batch, Given]):
    """The state of one training: all of it is in the checkpoint, and a run taken up again makes the same weights.

    smoothed    the network's parameters, averaged over the steps of late: what ships
    """

    def __init__(
        self,
        build: Callable[[], Network],
        optimiser_of: Callable[[Network, Given], torch.optim.Optimizer],
        training: Given,
        *,
        seed: int,
        device: torch.device,
        same: Mapping[str, object] | None = None,
    ) -> None:
        """same     what a checkpoint must share with this run, beside its seed and its network"""
        torch.manual_seed(seed)
        self.training, self.device, self.seed = training, device, seed
        self.network = build().to(device)
        self.smoothed = build().to(device).eval().requires_grad_(False)
        self.smoothed.load_state_dict(self.network.state_dict())
        self.optimiser = optimiser_of(self.network, training)
        self.step = 0
        self.late_loss = math.nan
        self._same = {"seed": seed, **(same or {})}

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """What is to become small, a scalar."""

    def fit(self, store: Store[Batch, Given], checkpoint: Path, report: OnProgress, *, workers: int = 0) -> None:
        """The remaining steps.

        workers     processes that make batches ahead (`batches`)
        raises      ModelError     the loss is no longer a number; the checkpoint before stays
        """
        self.network.train()
        for batch in batches(store, self.training, first=self.step, workers=workers):
            loss = self._one_step(batch)
            if not math.isfinite(loss):
                raise ModelError(f"the loss is not finite after {self.step} steps")
            self.late_loss = smoothed_loss(self.late_loss, loss)
            self.step += 1
            report("training", self.step, self.training.steps, self.late_loss)
            if self.step % self.training.checkpoint_every == 0 or self.step == self.training.steps:
                self.save(checkpoint)

    def _one_step(self, batch: Batch) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = group.get("times", 1.0) * learning_rate(self.step, self.training)
        loss = self.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip)
        self.optimiser.step()
        follow(self.smoothed, self.network, self.training.ema_decay, step=self.step)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            **self._same,
            "step": self.step,
            "late_loss": self.late_loss,
            "network": self.network.state_dict(),
            "smoothed": self.smoothed.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_checkpoint(state, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        raises   ModelError     it is of another run or network, damaged, or has gone beyond this run's end
        """
        state = read_checkpoint(path)
        hold_to(state, self._same, self.training)
        try:
            self.network.load_state_dict(state["network"])
            self.smoothed.load_state_dict(state["smoothed"])
        except (KeyError, RuntimeError) as error:
            raise ModelError("the checkpoint belongs to another network") from error
        self.step, self.late_loss = state["step"], state["late_loss"]
        self.optimiser.load_state_dict(state["optimiser"])
