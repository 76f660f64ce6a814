"""Does the detector's feedback help, and is it lesions that help? Every arm trained alike, judged by another detector.

source: LIDnet dossier, section 7. The judge has another start and was trained on clean slices alone: a denoiser that
has only learned to please its own detector gains nothing here.
"""

from __future__ import annotations

import copy
import json
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
from models.evaluation.froc import Bootstrap, Tally, froc_measures
from models.evaluation.table import Row, Table
from models.lidnet.collaborate import Arm, Collaboration, CollaborationConfig
from models.lidnet.joint import JointConfig, JointStore, make_joint_samples
from models.lidnet.judgement import Doses, Measured, judge_on
from models.side_by_side import processes
from models.training import OnProgress
from models.weights import save_weights

Untrained = Literal["A0", "full dose"]
Method = Arm | Untrained
Tables = tuple[Table, ...]
Say = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss of late."""

UNTRAINED: tuple[Untrained, ...] = ("A0", "full dose")

COMPARISONS: tuple[tuple[Arm, Method], ...] = (
    ("A1", "A0"),
    ("A6", "A1"),
    ("A3", "A2"),
    ("A6", "A5"),
    ("A6", "A6-shuffled"),
    ("A6", "A6-joint"),
)
FIRST_CASE = {"training": 0, "validation": 500, "test": 1000, "healthy": 2000}
"""Numbers of cases, and so patients, that no other use has."""
JUDGE, PARTNER, HEALTHY = "judge", "own detector", "judge, without lesions"
"""Who looks at what, as `Measured` names it."""
SWEPT: tuple[Arm, ...] = ("A3", "A4", "A6")
"""Arms whose weights are worth a sweep: the perceptual term alone, the detection term alone, both."""
SWEEP = (0.1, 1.0, 10.0)
MARKED_AT = 1.0
"""False positives per full-dose slice with lesions: the judge's marks from the score on at which it makes so many."""
EVERY_S = 0.5
"""How often processes side by side say how far they are."""
NOTES = (
    "Simulated patients that no training saw; low dose is simulated.",
    "Judge: a detector that took no part in the training (other start, clean slices only); own detector: the one that"
    " gave feedback, as the training left it. Mean sensitivity at .5, 1, 2 and 4 false positives per slice, IoU 0.5.",
    "False marks: of the judge per slice of patients without lesions, from the score on at which it makes one false"
    " mark per full-dose slice with lesions.",
    "ROI RMSE, ROI SSIM: over the lesions' boxes against the full-dose slice. CNR: lesion less ring, over the ring's"
    " spread. Lesion bias, lesion contrast: mean of the lesion, and its distance from the ring, less the full dose's.",
    "PSNR: soft tissue -160…240 HU (data range 400), over the body.",
    "All seeds together; 95 % bootstrap over patients, the same patients drawn for both sides of a difference.",
)


@dataclass(frozen=True)
class AblationConfig:
    """What is compared.

    arms        trained; the low-dose input (A0) and the full dose (the ceiling) are always measured besides
    seeds       one training of every arm each
    times       by what the shares of the perceptual and the detection term are multiplied, in a training each
    training    its samples           test, healthy     the samples of the judgement
    judged_on   patients of the judgement: whoever chooses something by it must not take those of the test
    fractions   doses of the judgement
    side_px     None: whole slices are judged; else squares of so many pixels around their lesions
    """

    collaboration: CollaborationConfig
    arms: tuple[Arm, ...] = ("A1", "A2", "A3", "A4", "A5", "A6", "A6-shuffled")
    seeds: tuple[int, ...] = (1, 2, 3)
    times: tuple[float, ...] = (1.0,)
    training: JointConfig = field(default_factory=JointConfig)
    test: JointConfig = field(default_factory=lambda: JointConfig(cases=10, slices_per_case=4))
    healthy: JointConfig = field(default_factory=lambda: JointConfig(cases=5, slices_per_case=4, healthy=True))
    judged_on: Literal["test", "validation"] = "test"
    fractions: tuple[float, ...] = (0.25, 0.1)
    side_px: int | None = None


@dataclass(frozen=True)
class _Task:
    """One training and its judgement, or the judgement of what needs no training."""

    method: Method
    seed: int = 0
    times: float = 1.0

    @property
    def label(self) -> str:
        """The method as tables name it."""
        return self.method if self.times == 1 else f"{self.method} × {self.times:g}"

    @property
    def file(self) -> str:
        """The training as files name it."""
        return f"{self.method}-{self.seed}" if self.times == 1 else f"{self.method}-x{self.times:g}-{self.seed}"


@dataclass(frozen=True, eq=False)
class _Common:
    """What all tasks share.

    networks            denoiser, detector and judge, pickled, so that no task changes another's
    files               of the training         tested, healthy     of the judgement
    """

    networks: bytes
    files: list[Path]
    tested: list[Path]
    healthy: list[Path]
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
    out         samples; checkpoint, weights (fp16 safetensors) and facts of every training
    workers     processes that draw cases, and then train and judge arms, side by side; 0: this one. A process has one
                thread; that apart, results do not depend on them
    on_tables   called whenever a seed is complete, with the tables of the seeds complete so far
    raises   ModelError     a checkpoint of another run, or a loss that is no longer finite
    """
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)

    def samples(what: str, wanted: JointConfig) -> list[Path]:
        return make_joint_samples(
            out / what,
            wanted,
            detector_config,
            seed=seed,
            first_case=FIRST_CASE[what],
            device=device,
            workers=workers,
            on_progress=lambda done, total: report(f"{what} samples", done, total, float("nan")),
        )

    networks = tuple(copy.deepcopy(network).cpu() for network in (denoiser, detector, judge))
    common = _Common(
        networks=pickle.dumps(networks),
        files=samples("training", config.training),
        tested=samples(config.judged_on, config.test),
        healthy=samples("healthy", config.healthy),
        out=out,
        config=config,
        single=len(detector_config.network.categories) == 1,
        device=torch.device(device),
    )
    tasks = [*map(_Task, UNTRAINED), *(task for number in config.seeds for task in _trainings(config, number))]
    found: dict[_Task, Doses] = {}
    shown: Sequence[int] = ()
    for task, measured in _all(tasks, common, workers, report):
        found[task] = measured
        complete = [number for number in config.seeds if found.keys() >= set(_trainings(config, number))]
        if len(complete) > len(shown) and {_Task(method) for method in UNTRAINED} <= found.keys():
            shown, tables = complete, _tables(_together(found, config, complete), config)
            if on_tables is not None:
                on_tables(tables)
    return tables


def _trainings(config: AblationConfig, seed: int) -> list[_Task]:
    """All of one seed; arms without the terms that are multiplied are trained once."""
    return [_Task(arm, seed, times) for arm in config.arms for times in (config.times if arm != "A1" else (1.0,))]


def _all(tasks: Sequence[_Task], common: _Common, workers: int, report: OnProgress) -> Iterator[tuple[_Task, Doses]]:
    """Each task and what it measured, in the order in which they end."""
    if workers:
        yield from _side_by_side(tasks, common, workers, report)
        return
    for task in tasks:
        yield task, _measure(task, common, partial(report, f"{task.label}, seed {task.seed}"))


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
    detector.to(common.device).eval()
    fractions = common.config.fractions
    if task.method == "A0":
        return _judged(None, detector, judge, common, fractions)
    if task.method == "full dose":
        return dict.fromkeys(fractions, _judged(None, detector, judge, common, (1.0,))[1.0])
    store = JointStore(common.files, common.config.training, seed=task.seed, single=common.single)
    collaboration = Collaboration(
        denoiser,
        detector,
        store,
        common.config.collaboration.times(task.times),
        arm=task.method,
        seed=task.seed,
        device=common.device,
    )
    checkpoint = common.out / f"{task.file}.pt"
    if checkpoint.exists():
        collaboration.load(checkpoint)
    collaboration.fit(checkpoint, lambda _turn, done, total, loss: say(done, total, loss))
    save_weights(collaboration.smoothed, common.out / f"{task.file}.safetensors")
    facts = json.dumps(collaboration.facts(), indent=1) + "\n"
    (common.out / f"{task.file}.json").write_text(facts, encoding="utf8")
    return _judged(collaboration.smoothed, collaboration.detector.eval(), judge, common, fractions)


def _judged(
    denoiser: nn.Module | None, partner: Detector, judge: Detector, common: _Common, fractions: Sequence[float]
) -> Doses:
    judged = partial(judge_on, denoiser, fractions=fractions, side_px=common.config.side_px)
    doses = judged({JUDGE: judge, PARTNER: partner}, common.tested)
    for fraction, healthy in judged({HEALTHY: judge}, common.healthy).items():
        doses[fraction].outcomes[HEALTHY] = healthy.outcomes[HEALTHY]
    return doses


def _together(
    found: Mapping[_Task, Doses], config: AblationConfig, seeds: Sequence[int]
) -> dict[tuple[float, str], Measured]:
    """All seeds of a method as one; what needs no training as often, so that both sides of a difference are alike."""
    together: dict[tuple[float, str], Measured] = defaultdict(Measured)
    for number in seeds:
        for task in (*map(_Task, UNTRAINED), *_trainings(config, number)):
            for fraction, measured in found[task].items():
                together[fraction, task.label].add(measured)
    return together


def _compared(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Arms against each other, and what was multiplied against what was not."""
    swept = [(label, label.split(" × ")[0]) for label in labels if " × " in label]
    return [pair for pair in (*COMPARISONS, *swept) if set(pair) <= set(labels)]


def _tables(measured: Mapping[tuple[float, str], Measured], config: AblationConfig) -> Tables:
    bootstrap = Bootstrap()
    rows, differences, curves, verdicts = [], [], [], []
    trained = [task.label for task in _trainings(config, config.seeds[0])]
    labels = ("A0", *trained, "full dose")
    for fraction in config.fractions:
        condition = f"{100 * fraction:g} % dose"
        values = {label: _per_patient(measured[fraction, label]) for label in labels}
        point = values["full dose"].tallies[JUDGE].threshold_at(MARKED_AT)
        for label, own in values.items():
            rows.append(Row(condition, label, _intervals(own, None, bootstrap, point)))
            for who, tally in own.tallies.items():
                if who != HEALTHY:
                    curves.append(Row(condition, f"{label}, {who}", froc_measures(tally).summary(bootstrap)))
        for label, other in _compared(labels):
            gained = _intervals(values[label], values[other], bootstrap, point)
            differences.append(Row(condition, f"{label} − {other}", gained))
            verdicts.append(_verdict(differences[-1]))
    return (
        Table("Arms of the collaborative training", tuple(rows), NOTES),
        Table("Differences of arms", tuple(differences), (*NOTES, *verdicts)),
        Table("Sensitivity at so many false positives per slice, average precision", tuple(curves), NOTES),
    )


def _verdict(row: Row) -> str:
    """What differs, in words; an interval that holds 0 is no difference."""
    signs = {name: np.sign(value.low) if value.low * value.high > 0 else 0 for name, value in row.values.items()}
    said = [f"{name} {'higher' if sign > 0 else 'lower'}" for name, sign in signs.items() if sign]
    alike = [name for name, sign in signs.items() if not sign]
    if alike:
        said.append(f"no significant difference in {', '.join(alike)}")
    return f"{row.condition}, {row.method}: {'; '.join(said)}."


@dataclass(frozen=True, eq=False)
class _Values:
    """Outcomes of each detector, and the mean of each number per patient, patients in the judge's order."""

    tallies: dict[str, Tally]
    numbers: dict[str, NDArray[np.float64]]


def _per_patient(measured: Measured) -> _Values:
    tallies = {name: Tally(outcomes) for name, outcomes in measured.outcomes.items()}
    numbers = {
        name: np.array([_mean(values[patient]) for patient in tallies[JUDGE].patients])
        for name, values in measured.numbers.items()
    }
    return _Values(tallies, numbers)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _intervals(values: _Values, other: _Values | None, bootstrap: Bootstrap, point: float) -> dict[str, Interval]:
    """Each measure, or its difference to another method's, over patients drawn alike for both."""

    def difference(of: Callable[[_Values, NDArray[np.int64]], NDArray[np.float64]], patients: int) -> list[Interval]:
        return bootstrap.interval(
            lambda weights: of(values, weights) - (0 if other is None else of(other, weights)), patients
        )

    names = (f"mean sensitivity, {JUDGE}", f"mean sensitivity, {PARTNER}", *values.numbers)
    intervals = difference(_weighed, len(values.tallies[JUDGE].patients))
    [false] = difference(
        lambda who, weights: np.array([who.tallies[HEALTHY].false_above(point, weights)]),
        len(values.tallies[HEALTHY].patients),
    )
    return {**dict(zip(names, intervals, strict=True)), "false marks": false}


def _weighed(values: _Values, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    found = [values.tallies[who].average_sensitivity(weights) for who in (JUDGE, PARTNER)]
    for numbers in values.numbers.values():
        known = np.isfinite(numbers)
        total = weights[known].sum()
        found.append(float(weights[known] @ numbers[known] / total) if total else float("nan"))
    return np.array(found)
