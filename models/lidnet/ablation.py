"""Does the detector's feedback help, and is it lesions that help? Every arm trained alike, judged by another detector.

source: LIDnet dossier, section 7. The judge has another start and was trained on clean slices alone: a denoiser that
has only learned to please its own detector gains nothing here.
"""

from __future__ import annotations

import copy
import pickle
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.deeplesion.config import DeepLesionConfig
from models.deeplesion.network import Detector
from models.evaluation.bootstrap import Interval
from models.evaluation.froc import Bootstrap, Tally
from models.evaluation.table import Row, Table
from models.lidnet.collaborate import Arm, Collaboration, CollaborationConfig
from models.lidnet.joint import JointConfig, JointStore, make_joint_samples
from models.lidnet.judgement import Doses, Measured, judge_on
from models.side_by_side import processes
from models.training import OnProgress
from models.weights import save_weights

Untrained = Literal["A0", "full dose"]
Method = Arm | Untrained
Tables = tuple[Table, Table]
Say = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss of late."""

UNTRAINED: tuple[Untrained, ...] = ("A0", "full dose")

COMPARISONS: tuple[tuple[Arm, Method], ...] = (
    ("A1", "A0"),
    ("A6", "A1"),
    ("A3", "A2"),
    ("A6", "A5"),
    ("A6", "A6-shuffled"),
)
FIRST_TEST_CASE = 1000
EVERY_S = 0.5
"""How often processes side by side say how far they are."""
NOTES = (
    "Simulated patients that no training saw; low dose is simulated.",
    "Detection is by a detector that took no part in the training (other start, clean slices only): mean sensitivity at"
    " .5, 1, 2 and 4 false positives per slice, IoU 0.5.",
    "ROI RMSE: over the lesions' boxes against the full-dose slice. CNR: lesion less ring, over the ring's spread.",
    "PSNR: soft tissue -160…240 HU (data range 400), over the body.",
    "All seeds together; 95 % bootstrap over patients, the same patients drawn for both sides of a difference.",
)


@dataclass(frozen=True)
class AblationConfig:
    """What is compared.

    arms        trained; the low-dose input (A0) and the full dose (the ceiling) are always measured besides
    seeds       one training of every arm each
    training    its samples           test    the samples of the judgement
    fractions   doses of the judgement
    """

    collaboration: CollaborationConfig
    arms: tuple[Arm, ...] = ("A1", "A2", "A3", "A4", "A5", "A6", "A6-shuffled")
    seeds: tuple[int, ...] = (1, 2, 3)
    training: JointConfig = field(default_factory=JointConfig)
    test: JointConfig = field(default_factory=lambda: JointConfig(cases=10, slices_per_case=4))
    fractions: tuple[float, ...] = (0.25, 0.1)


@dataclass(frozen=True)
class _Task:
    """One training and its judgement, or the judgement of what needs no training."""

    method: Method
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Common:
    """What all tasks share. networks: denoiser, detector and judge, pickled, so that no task changes another's."""

    networks: bytes
    files: list[Path]
    tested: list[Path]
    out: Path
    config: AblationConfig
    single: bool
    device: torch.device


def run(
    denoiser: nn.Module,
    detector: Detector,
    judge: Detector,
    out: Path,
    config: AblationConfig,
    detector_config: DeepLesionConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    on_progress: OnProgress | None = None,
    on_tables: Callable[[Tables], None] | None = None,
) -> Tables:
    """Every arm and its differences; a run that was stopped goes on where it was.

    denoiser, detector  trained apart, where every arm starts       judge   trained apart from both
    out         samples, checkpoints and weights (fp16 safetensors) of every arm
    workers     processes that draw cases, and then train and judge arms, side by side; 0: this one. A process has one
                thread; that apart, results do not depend on them
    on_tables   called whenever a seed is complete, with the tables of the seeds complete so far
    raises   ModelError     a checkpoint of another run, or a loss that is no longer finite
    """
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)

    def samples(what: str, wanted: JointConfig, first_case: int) -> list[Path]:
        return make_joint_samples(
            out / what,
            wanted,
            detector_config,
            seed=seed,
            first_case=first_case,
            device=device,
            workers=workers,
            on_progress=lambda done, total: report(f"{what} samples", done, total, float("nan")),
        )

    networks = tuple(copy.deepcopy(network).cpu() for network in (denoiser, detector, judge))
    common = _Common(
        networks=pickle.dumps(networks),
        files=samples("training", config.training, 0),
        tested=samples("test", config.test, FIRST_TEST_CASE),
        out=out,
        config=config,
        single=len(detector_config.network.categories) == 1,
        device=torch.device(device),
    )
    tasks = [*map(_Task, UNTRAINED), *(_Task(arm, number) for number in config.seeds for arm in config.arms)]
    found: dict[_Task, Doses] = {}
    shown: Sequence[int] = ()
    for task, measured in _all(tasks, common, workers, report):
        found[task] = measured
        complete = [number for number in config.seeds if all(_Task(arm, number) in found for arm in config.arms)]
        if len(complete) > len(shown) and {_Task(method) for method in UNTRAINED} <= found.keys():
            shown, tables = complete, _tables(_together(found, config, complete), config)
            if on_tables is not None:
                on_tables(tables)
    return tables


def _all(tasks: Sequence[_Task], common: _Common, workers: int, report: OnProgress) -> Iterator[tuple[_Task, Doses]]:
    """Each task and what it measured, in the order in which they end."""
    if workers:
        yield from _side_by_side(tasks, common, workers, report)
        return
    for task in tasks:
        yield task, _measure(task, common, partial(report, f"{task.method}, seed {task.seed}"))


def _side_by_side(
    tasks: Sequence[_Task], common: _Common, workers: int, report: OnProgress
) -> Iterator[tuple[_Task, Doses]]:
    with get_context("spawn").Manager() as manager, processes(workers) as pool:
        said, stop = manager.Queue(), manager.Event()
        waiting = {pool.submit(_measure_aside, task, common, said, stop): task for task in tasks}
        news: dict[_Task, tuple[int, float]] = {}
        total = sum(task.method not in UNTRAINED for task in tasks) * common.config.collaboration.steps
        try:
            while waiting:
                ended, _ = wait(waiting, timeout=EVERY_S, return_when=FIRST_COMPLETED)
                while not said.empty():
                    task, done, loss = said.get()
                    news[task] = (done, loss)
                if news:
                    late = np.mean([loss for _, loss in news.values()])
                    report(f"{len(waiting)} trainings", sum(done for done, _ in news.values()), total, float(late))
                for future in ended:
                    yield waiting.pop(future), future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """Another task failed."""


def _measure_aside(
    task: _Task, common: _Common, said: queue.Queue[tuple[_Task, int, float]], stop: threading.Event
) -> Doses:
    """In a process of its own."""
    last = time.monotonic()

    def say(done: int, total: int, loss: float) -> None:
        nonlocal last
        if time.monotonic() - last < EVERY_S and done < total:
            return
        last = time.monotonic()
        said.put((task, done, loss))
        if stop.is_set():
            raise _Stopped

    return _measure(task, common, say)


def _measure(task: _Task, common: _Common, say: Say) -> Doses:
    denoiser, detector, judge = pickle.loads(common.networks)
    judge.to(common.device).eval()
    fractions = common.config.fractions
    if task.method == "A0":
        return judge_on(None, judge, common.tested, fractions)
    if task.method == "full dose":
        return dict.fromkeys(fractions, judge_on(None, judge, common.tested, (1.0,))[1.0])
    store = JointStore(common.files, common.config.training, seed=task.seed, single=common.single)
    collaboration = Collaboration(
        denoiser,
        detector,
        store,
        common.config.collaboration,
        arm=task.method,
        seed=task.seed,
        device=common.device,
    )
    name = f"{task.method}-{task.seed}"
    checkpoint = common.out / f"{name}.pt"
    if checkpoint.exists():
        collaboration.load(checkpoint)
    collaboration.fit(checkpoint, lambda _turn, done, total, loss: say(done, total, loss))
    save_weights(collaboration.smoothed, common.out / f"{name}.safetensors")
    return judge_on(collaboration.smoothed, judge, common.tested, fractions)


def _together(
    found: Mapping[_Task, Doses], config: AblationConfig, seeds: Sequence[int]
) -> dict[tuple[float, Method], Measured]:
    """All seeds of a method as one; what needs no training as often, so that both sides of a difference are alike."""
    together: dict[tuple[float, Method], Measured] = defaultdict(Measured)
    for number in seeds:
        for task in (*map(_Task, UNTRAINED), *(_Task(arm, number) for arm in config.arms)):
            for fraction, measured in found[task].items():
                together[fraction, task.method].add(measured)
    return together


def _tables(measured: Mapping[tuple[float, Method], Measured], config: AblationConfig) -> Tables:
    bootstrap = Bootstrap()
    rows, differences = [], []
    methods: tuple[Method, ...] = ("A0", *config.arms, "full dose")
    for fraction in config.fractions:
        condition = f"{100 * fraction:.0f} % dose"
        all_values = {method: _per_patient(measured[fraction, method]) for method in methods}
        for method, values in all_values.items():
            rows.append(Row(condition, method, _intervals(values, None, bootstrap)))
        for arm, other in COMPARISONS:
            if {arm, other} <= set(methods):
                gained = _intervals(all_values[arm], all_values[other], bootstrap)
                differences.append(Row(condition, f"{arm} − {other}", gained))
    return (
        Table("Arms of the collaborative training", tuple(rows), NOTES),
        Table("Differences of arms", tuple(differences), NOTES),
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """The judge's outcomes, and the mean of each number per patient, patients in the tally's order."""

    tally: Tally
    numbers: dict[str, NDArray[np.float64]]


def _per_patient(measured: Measured) -> _Values:
    tally = Tally(measured.outcomes)
    numbers = {
        name: np.array([_mean(values[patient]) for patient in tally.patients])
        for name, values in measured.numbers.items()
    }
    return _Values(tally, numbers)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _intervals(values: _Values, other: _Values | None, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Each measure, or its difference to another method's, over patients drawn alike for both."""

    def measure(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        own = _weighed(values, weights)
        return own if other is None else own - _weighed(other, weights)

    names = ("mean sensitivity", *values.numbers)
    return dict(zip(names, bootstrap.interval(measure, len(values.tally.patients)), strict=True))


def _weighed(values: _Values, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    found = [values.tally.average_sensitivity(weights)]
    for numbers in values.numbers.values():
        known = np.isfinite(numbers)
        total = weights[known].sum()
        found.append(float(weights[known] @ numbers[known] / total) if total else float("nan"))
    return np.array(found)
