"""Arms that were trained several times, from other seeds: their trainings pooled, and every two arms compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np

from models.evaluation.bootstrap import Interval
from models.evaluation.froc import Bootstrap, Measures, pooled
from models.evaluation.matching import IOU
from models.evaluation.table import Row, Table

Arms = Mapping[str, Sequence[str]]
"""Name of the arm → names of its trainings, each from another seed."""
ByTraining = Mapping[str, Measures]

STRICT_IOU = 0.7
OVERALL = ("average @.5-4", "AP")
ACCURACIES = ("top 1", "top 3", "above threshold")
OVER_PATIENTS = "95 % interval over patients"
OVER_TRAININGS = "least and most of two trainings"
THRESHOLDS = "Each training's threshold is the one set on validation at an IoU above .5, whatever IoU is asked for."


def accuracy_table(accuracies: Mapping[float, ByTraining], arms: Arms, draws: Bootstrap) -> Table:
    """Accuracy of every arm over the IoU asked for.

    accuracies      by the IoU that a detection must exceed: `accuracy_measures` of every training
    """
    told = {
        arm: {iou: pooled([one[name] for name in names]).summary(draws) for iou, one in accuracies.items()}
        for arm, names in arms.items()
    }
    rows = [
        Row(way, arm, {f"IoU > {iou:g}": values[way] for iou, values in of.items()})
        for way in ACCURACIES
        for arm, of in told.items()
    ]
    return Table("Accuracy over the IoU asked for", tuple(rows), (THRESHOLDS, _pooling(arms)))


def difference_table(frocs: ByTraining, accuracies: Mapping[float, ByTraining], arms: Arms, draws: Bootstrap) -> Table:
    """Every two arms, the first minus the second.

    frocs       `froc_measures` of every training       accuracies      as in `accuracy_table`
    """
    parts: list[tuple[ByTraining, Sequence[str], str]] = [(frocs, OVERALL, "")]
    parts += [(accuracies[iou], ACCURACIES, f", IoU > {iou:g}") for iou in (IOU, STRICT_IOU)]
    rows = {pair: (dict[str, Interval](), dict[str, Interval]()) for pair in combinations(arms, 2)}
    for measures, names, suffix in parts:
        trainings = {arm: [measures[name] for name in of] for arm, of in arms.items()}
        means = {arm: pooled(of) for arm, of in trainings.items()}
        for (one, other), (over_patients, over_trainings) in rows.items():
            apart = means[one].minus(means[other], draws)
            ends = _ends(trainings[one], trainings[other])
            for name in names:
                least, most = ends[name]
                over_patients[name + suffix] = apart[name]
                over_trainings[name + suffix] = replace(apart[name], low=least, high=most)
    told = [
        Row(condition, f"{one} minus {other}", values)
        for (one, other), both in rows.items()
        for condition, values in zip((OVER_PATIENTS, OVER_TRAININGS), both, strict=True)
    ]
    notes = (
        "The mean of an arm's trainings, the same patients drawn for all of both arms. The interval over patients says"
        " nothing of other seeds; the second row of each pair has the least and the most that one training of the first"
        " arm is above one of the second.",
        THRESHOLDS,
        _pooling(arms),
    )
    return Table("Paired difference between arms", tuple(told), notes)


def _ends(first: Sequence[Measures], second: Sequence[Measures]) -> dict[str, tuple[float, float]]:
    """Least and most difference of one training each, by measure."""
    apart = np.array([
        np.subtract(one.of(one.tally.once), other.of(other.tally.once)) for one, other in product(first, second)
    ])  # fmt: skip
    return {
        name: (float(values.min()), float(values.max())) for name, values in zip(first[0].names, apart.T, strict=True)
    }


def _pooling(arms: Arms) -> str:
    counts = ", ".join(f"{arm} {len(names)}" for arm, names in arms.items())
    return f"Trainings of an arm differ in their seed alone, and are pooled. How many: {counts}."
