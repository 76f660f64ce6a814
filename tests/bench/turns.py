"""Work in turns on one machine, held against what the machine can do: the rounds, the peaks, the table."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from models.evaluation.bootstrap import Interval
from models.evaluation.table import Row, Table

ON_THE_CPU = "as the node runs it, on the CPU"
MATMULS = 10
COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class Call:
    """Work on so many slices or images.

    gflop   of one of them, NaN where not counted       peak    which it is held against, "" on the CPU beside a GPU
    warm    whether it runs once before the rounds
    """

    run: Callable[[], object]
    units: float
    gflop: float = math.nan
    peak: str = ""
    warm: bool = True


@dataclass(frozen=True)
class Machine:
    """What it can do: TFLOP/s of a matrix product by name of the precision, GB/s of copies by name."""

    device: torch.device
    name: str
    peaks: Mapping[str, float]
    copies: Mapping[str, float]

    def notes(self) -> tuple[str, ...]:
        """For the reader of a table."""
        peaks = ", ".join(f"{name} {value:.3g} TFLOP/s" for name, value in self.peaks.items())
        copies = "; ".join(f"{name} {value:.3g} GB/s" for name, value in self.copies.items())
        return (f"{self.name}. Matrix product: {peaks}.", *((f"Copies: {copies}.",) if copies else ()))


@dataclass(frozen=True)
class Bench:
    """One model: who is called, and what of a result is compared.

    calls       the first is the model as the node runs it
    compared    of a result: the same bits each time, and near to the CPU's
    few         the result for what the CPU is given beside a GPU
    """

    title: str
    unit: str
    calls: Mapping[str, Call]
    compared: Callable[[Any], NDArray[Any]]
    few: Callable[[], object]
    notes: tuple[str, ...]


@dataclass
class Timed:
    """Seconds a unit, round by round, the first and the last result, and the most memory of the first time."""

    seconds: list[float] = field(default_factory=list)
    first: object = None
    last: object = None
    peak_bytes: int = 0


@dataclass(frozen=True)
class Card:
    """What must be asked of a GPU beside the work, and of a CPU need not."""

    cuda: bool

    def wait(self) -> None:
        """Until all is done that was asked."""
        if self.cuda:
            torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        """The most memory since this was last asked."""
        if not self.cuda:
            return 0
        most = int(torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
        return most


def take_turns(
    calls: Mapping[str, Call], card: Card, *, rounds: int, until: float, say: Callable[[str], None]
) -> dict[str, Timed]:
    """Every call in turn, round after round; each once before the rounds. No further round begins after `until`."""
    timed = {name: Timed() for name in calls}
    card.peak_bytes()
    for name, call in calls.items():
        if call.warm:
            timed[name].first = call.run()
            card.wait()
        timed[name].peak_bytes = card.peak_bytes()
    for number in range(rounds):
        if number and perf_counter() > until:
            break
        for name, call in calls.items():
            begun = perf_counter()
            timed[name].last = call.run()
            card.wait()
            timed[name].seconds.append((perf_counter() - begun) / call.units)
            say(f"round {number + 1}, {name}: {1000 * timed[name].seconds[-1]:.3g} ms")
    return timed


def table_of(bench: Bench, timed: Mapping[str, Timed], machine: Machine, notes: tuple[str, ...]) -> Table:
    """Medians of the rounds, the lowest and the highest beside them."""
    first = next(iter(timed))
    rows = []
    for name, taken in timed.items():
        call, seconds = bench.calls[name], taken.seconds
        rate = [call.gflop / 1000 / each for each in seconds]
        values = {
            f"ms per {bench.unit}": _middle([1000 * each for each in seconds]),
            f"{bench.unit}s a second": _middle([1 / each for each in seconds]),
            f"ratio to {first}": _middle([a / b for a, b in zip(seconds, timed[first].seconds, strict=True)]),
            "TFLOP/s": _middle(rate),
            "share of the peak": _middle([each / machine.peaks.get(call.peak, math.nan) for each in rate]),
        }
        rows.append(Row(call.peak or "CPU", name, values))
    return Table(bench.title, tuple(rows), (*bench.notes, *notes, *machine.notes()))


def _middle(values: Sequence[float]) -> Interval:
    return Interval(statistics.median(values), min(values), max(values), len(values))


@contextmanager
def rounded() -> Iterator[None]:
    """float32 rounded to TF32 in products and convolutions, which the models do without."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def machine_of(device: torch.device, side: int) -> Machine:
    """Measured now, beside whatever else runs here."""
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    peaks = {
        "bf16": matmul_tflops(device, torch.bfloat16, side),
        "float32": matmul_tflops(device, torch.float32, side),
    }
    if device.type != "cuda":
        return Machine(device, f"{platform.processor() or platform.machine()}, {threads}", peaks, {})
    with rounded():
        peaks["TF32"] = matmul_tflops(device, torch.float32, side)
    return Machine(device, f"{torch.cuda.get_device_name(device)}; host: {threads}", peaks, copy_speeds(device))


def matmul_tflops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """A square product of random numbers: median of the repeats."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    taken = []
    for number in range(MATMULS + 2):
        seconds = _seconds(lambda: a @ b, device)
        if number > 1:
            taken.append(seconds)
    return 2 * side**3 / statistics.median(taken) / 1e12


def copy_speeds(device: torch.device) -> dict[str, float]:
    """GB/s to the card and back, from memory that may be paged out and from memory that may not."""
    found = {}
    card = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)
    for name, pinned in (("pageable", False), ("pinned", True)):
        host = torch.zeros(COPIED_BYTES, dtype=torch.uint8, pin_memory=pinned)
        for way, copy in (("to the card", partial(card.copy_, host)), ("back", partial(host.copy_, card))):
            _seconds(copy, device)
            found[f"{name} {way}"] = COPIED_BYTES / _seconds(copy, device) / 1e9
    return found


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        begun = perf_counter()
        call()
        return perf_counter() - begun
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def gflop_of(call: Callable[[], object]) -> float:
    """Of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        call()
    return float(counter.get_total_flops()) / 1e9


def again(call: Callable[[], object], times: int) -> Callable[[], None]:
    """The network alone: no result leaves the device."""

    @torch.inference_mode()
    def work() -> None:
        for _ in range(times):
            call()

    return work


def run(bench: Bench, machine: Machine, *, rounds: int, until: float, say: Callable[[str], None]) -> Table:
    """One model's table: speeds, memory, and whether a GPU says the same each time and what a CPU says."""
    card = Card(machine.device.type == "cuda")
    timed = take_turns(bench.calls, card, rounds=rounds, until=until, say=say)
    taken = next(iter(timed.values()))
    same = np.array_equal(bench.compared(taken.first), bench.compared(taken.last))
    notes = [f"{len(taken.seconds)} rounds. The same bits each time: {'yes' if same else 'NO'}."]
    if card.cuda:
        notes.append(f"As the node runs it, at most {taken.peak_bytes / 2**20:.0f} MiB on the card.")
    if ON_THE_CPU in timed:
        most, mean = apart(bench.compared(bench.few()), bench.compared(timed[ON_THE_CPU].last))
        notes.append(f"From the CPU's result: at most {most:.3g}, on average {mean:.3g}.")
    return table_of(bench, timed, machine, tuple(notes))


def apart(here: NDArray[Any], there: NDArray[Any]) -> tuple[float, float]:
    """Largest and mean difference; what one of them lacks is 0."""
    both = np.zeros((2, max(len(here), len(there)), *here.shape[1:]))
    both[0, : len(here)], both[1, : len(there)] = here, there
    difference = np.abs(both[0] - both[1])
    return (float(difference.max()), float(difference.mean())) if difference.size else (0.0, 0.0)
