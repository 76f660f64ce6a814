import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.contract import FloatArray, ModelError
from models.deeplesion.config import NetworkConfig
from models.deeplesion.evaluate import (
    Detected,
    Evaluation,
    detector_of,
    evaluate,
    evaluate_scans,
    image_of,
    scan_outcome,
)
from models.deeplesion.grouping import Axes, Region
from models.deeplesion.network import Detections, Detector, build
from models.deeplesion.place import SITES
from models.deeplesion.run import Found
from models.deeplesion.samples import LabelledVolume, Sample, load_sample
from models.evaluation.froc import Bootstrap
from models.evaluation.table import Row, Table
from models.simulation.lesions import PlantedLesion

SIDE = 64
FEW = Bootstrap(draws=30)
Place = tuple[int, int, int]
"""Column, row, side of a square lesion, in pixels."""


def write_sample(
    path: Path, patient: str, lesions: Sequence[Place], *, grazed: Sequence[Place] = (), hu: float = 40.0
) -> Path:
    """Squares of `hu` on air-free background 0; the box is the square and 5 px around it."""
    image = np.zeros((3, SIDE, SIDE), np.int16)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number, (x, y, side) in enumerate(lesions, 1):
        image[:, y : y + side, x : x + side] = round(hu)
        labels[y : y + side, x : x + side] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(
            stream,
            hu=image,
            labels=labels,
            boxes=boxes_of(lesions),
            category=np.zeros(len(lesions), np.int64),
            annotated=np.ones(len(lesions), np.bool_),
            ignore=boxes_of(grazed),
            patient=patient,
            family="squares",
        )
    return path


def boxes_of(places: Sequence[Place]) -> FloatArray:
    boxes = [(x - 5, y - 5, x + side + 5, y + side + 5) for x, y, side in places]
    return np.array(boxes, np.float32).reshape(-1, 4)


def says(*found: tuple[Place, float]) -> Callable[[FloatArray], Detected]:
    """An arm that says the same of every image."""
    boxes = boxes_of([place for place, _ in found])
    return lambda _: Detected(boxes, np.array([score for _, score in found]), np.zeros(len(found), np.int64))


def sees(least_px: int) -> Callable[[FloatArray], Detected]:
    """An arm that finds every square of at least this side exactly."""

    def detect(hu: FloatArray) -> Detected:
        y, x = np.nonzero(hu[1] > 0)
        side = int(np.ptp(x)) + 1 if len(x) else 0
        places = [(int(x.min()), int(y.min()), side)] if side >= least_px else []
        return Detected(boxes_of(places), np.full(len(places), 0.9), np.zeros(len(places), np.int64))

    return detect


@pytest.fixture
def validation(tmp_path: Path) -> list[Path]:
    return [write_sample(tmp_path / "validation" / f"{number}.npz", f"v{number}", [(20, 20, 10)]) for number in (1, 2)]


def test_a_curve_gets_what_is_too_unsure_to_be_shown(tiny) -> None:
    torch.manual_seed(0)
    network = build(replace(tiny, detect=replace(tiny.detect, least_score=1.0)))
    hu = np.random.default_rng(0).normal(0, 300, (3, 64, 64)).astype(np.float32)
    assert not len(network.detect(torch.from_numpy(hu)[None])[0].boxes)
    assert len(detector_of(network)(hu).boxes)


def table(evaluation: Evaluation, title: str) -> Table:
    return next(one for one in evaluation.tables if one.title == title)


def row(of: Table, arm: str, condition: str = "") -> Row:
    return next(one for one in of.rows if one.method == arm and one.condition.startswith(condition))


def test_an_image_knows_size_and_contrast_of_its_lesions(tmp_path: Path) -> None:
    image = image_of(load_sample(write_sample(tmp_path / "a.npz", "p", [(20, 20, 10), (45, 10, 4)], hu=-37.0)))
    # A square of 100 pixels of .8 mm has the area of a circle of 2·√(100/π)·.8 = 9.03 mm.
    assert image.diameter_mm == pytest.approx([9.027, 3.611], abs=1e-3)
    assert image.contrast_hu.tolist() == [-37, -37]


def test_a_section_without_pixels_has_no_contrast() -> None:
    nothing = np.zeros((1, 8, 8), np.float32)
    one_box = np.array([(1, 1, 6, 6)], np.float32)
    sample = Sample(
        nothing, np.zeros((8, 8), np.uint8), one_box, np.zeros(1, np.int64), np.ones(1, bool), one_box[:0], "p", "f"
    )
    assert math.isnan(image_of(sample).contrast_hu[0])
    assert image_of(sample).diameter_mm.tolist() == [0]


def test_a_perfect_arm_is_perfect(tmp_path: Path, validation: list[Path]) -> None:
    test = [write_sample(tmp_path / "t" / f"{k}.npz", f"p{k}", [(10 + k, 20, 8)]) for k in range(3)]
    done = evaluate({"all": sees(1)}, test, validation, bootstrap=FEW)
    froc = row(table(done, "FROC"), "all")
    assert froc.condition == "3 images, 3 lesions"
    assert {name: (value.mean, value.low, value.high) for name, value in froc.values.items()} == dict.fromkeys(
        ["@0.5", "@1", "@2", "@4", "@8", "@16", "average @.5-4", "AP"], (1, 1, 1)
    )
    accuracy = row(table(done, "Accuracy"), "all").values
    assert [value.mean for value in accuracy.values()] == [1, 1, 1, 0]
    over_iou = row(table(done, "Sensitivity over the IoU asked for"), "all").values
    assert [value.mean for value in over_iou.values()] == [1] * 5


def test_sensitivity_by_size_and_its_difference_are_told_apart(tmp_path: Path, validation: list[Path]) -> None:
    # Sides 8 and 16 px are 7.2 and 14.4 mm.
    test = [write_sample(tmp_path / "t" / f"{k}.npz", f"p{k}", [(20, 20, 8 if k % 2 else 16)]) for k in range(6)]
    done = evaluate({"all": sees(1), "large": sees(12)}, test, validation, bootstrap=FEW)
    by_size = table(done, "Sensitivity by size")
    assert [one.condition for one in by_size.rows[::2]] == [
        "6 to 10 mm, 3 lesions",
        "10 to 15 mm, 3 lesions",
        "from 6 mm, 6 lesions",
    ]
    means = [row(by_size, arm, size).values["@1"].mean for arm in ("all", "large") for size in ("6 to 10", "10 to 15")]
    assert means == [1, 1, 0, 1]
    lost = row(table(done, "Paired difference, FROC"), "large")
    assert lost.condition == "minus all"
    assert lost.values["@1"].mean == -0.5
    assert -1 <= lost.values["@1"].low <= -0.5 <= lost.values["@1"].high <= 0


def test_sensitivity_by_contrast_takes_dark_and_bright_alike(tmp_path: Path, validation: list[Path]) -> None:
    test = [write_sample(tmp_path / "t" / f"{hu}.npz", f"p{hu}", [(20, 20, 10)], hu=hu) for hu in (-100.0, 90.0, 20.0)]
    done = evaluate({"none": says()}, test, validation, bootstrap=FEW)
    conditions = [one.condition for one in table(done, "Sensitivity by contrast").rows]
    assert conditions == ["0 to 30 HU, 1 lesions", "60 to 120 HU, 2 lesions"]


def test_a_grazed_lesion_is_neither_missed_nor_false(tmp_path: Path, validation: list[Path]) -> None:
    test = [write_sample(tmp_path / "t" / "a.npz", "p", [(10, 10, 8)], grazed=[(40, 40, 8)])]
    on_it = evaluate({"arm": says(((40, 40, 8), 0.9), ((10, 10, 8), 0.8))}, test, validation, bootstrap=FEW)
    assert row(table(on_it, "FROC"), "arm").values["@0.5"].mean == 1
    assert row(table(on_it, "FROC"), "arm").values["AP"].mean == 1
    beside = evaluate({"arm": says(((40, 10, 8), 0.9), ((10, 10, 8), 0.8))}, test, validation, bootstrap=FEW)
    assert row(table(beside, "FROC"), "arm").values["@0.5"].mean == 0
    assert row(table(beside, "FROC"), "arm").values["AP"].mean == 0.5


def test_areas_of_edges_are_those_of_inclusive_corners(tmp_path: Path, validation: list[Path]) -> None:
    """A box of 20 px a side against one of 20 × 10: IoU 1/2 exactly, found for FROC, not for accuracy."""
    test = [write_sample(tmp_path / "t" / "a.npz", "p", [(20, 20, 10)])]
    half = Detected(np.array([(15.0, 15.0, 35.0, 25.0)]), np.array([0.9]), np.zeros(1, np.int64))
    done = evaluate({"half": lambda _: half}, test, validation, bootstrap=FEW)
    assert row(table(done, "FROC"), "half").values["@1"].mean == 1
    assert row(table(done, "Accuracy"), "half").values["top 1"].mean == 0


def test_the_threshold_comes_from_validation_alone(tmp_path: Path, validation: list[Path]) -> None:
    """Each validation image has one false positive at .7, another at .3: the threshold is .7, whatever the test has."""
    found = says(((20, 20, 10), 0.8), ((40, 40, 10), 0.7), ((40, 5, 10), 0.3))
    test = [write_sample(tmp_path / "t" / "a.npz", "p", [(40, 5, 10)])]
    done = evaluate({"arm": found}, test, validation, bootstrap=FEW)
    accuracy = row(table(done, "Accuracy"), "arm").values
    assert (accuracy["above threshold"].mean, accuracy["FP above threshold"].mean) == (0, 2)
    assert (accuracy["top 1"].mean, accuracy["top 3"].mean) == (0, 1)


@pytest.fixture
def half_large(tmp_path: Path) -> list[Path]:
    """Six patients with a lesion each, of 8 and of 16 pixels a side in turns."""
    return [write_sample(tmp_path / "h" / f"{k}.npz", f"p{k}", [(20, 20, 8 if k % 2 else 16)]) for k in range(6)]


def overlapping(rows: int) -> Callable[[FloatArray], Detected]:
    """An arm whose box has so many of the 20 rows of the box around (20, 20, 10)."""
    box = np.array([(15.0, 15.0, 35.0, 15.0 + rows)])
    return lambda _: Detected(box, np.array([0.9]), np.zeros(1, np.int64))


def test_arms_are_compared_by_the_mean_of_their_trainings(half_large: list[Path], validation: list[Path]) -> None:
    """With a share s of large lesions drawn, trainings find 1 and s, and s and 0: the arms' difference is always .5."""
    trainings = {"more 1": sees(1), "more 2": sees(12), "less 1": sees(12), "less 2": sees(99)}
    groups = {"more": ["more 1", "more 2"], "less": ["less 1", "less 2"]}
    done = evaluate({"first": sees(1), **trainings}, half_large, validation, trainings=groups, bootstrap=FEW)
    over_patients, over_trainings = table(done, "Paired difference between arms").rows
    assert (over_patients.method, over_trainings.method) == ("more minus less", "more minus less")
    for name in ("average @.5-4", "top 1, IoU > 0.5", "top 3, IoU > 0.7", "above threshold, IoU > 0.7"):
        drawn, seeds = over_patients.values[name], over_trainings.values[name]
        assert (drawn.mean, drawn.low, drawn.high, drawn.patients) == pytest.approx((0.5, 0.5, 0.5, 6)), name
        # The four pairs: 1 − .5, 1 − 0, .5 − .5, .5 − 0.
        assert (seeds.mean, seeds.low, seeds.high, seeds.patients) == (0.5, 0, 1, 6), name
    assert [one.method for one in table(done, "Paired difference, FROC").rows] == list(trainings)
    assert list(over_patients.values) == [
        "average @.5-4",
        "AP",
        *(f"{way}, IoU > {iou}" for iou in (0.5, 0.7) for way in ("top 1", "top 3", "above threshold")),
    ]


def test_arms_of_the_same_detectors_do_not_differ_whoever_is_drawn(
    half_large: list[Path], validation: list[Path]
) -> None:
    """And one that finds the large ones alone differs by how many small ones were drawn."""
    detectors = {"a 1": sees(1), "a 2": sees(12), "b 1": sees(12), "b 2": sees(1), "large": sees(12)}
    groups = {"a": ["a 1", "a 2"], "b": ["b 1", "b 2"], "large": ["large"]}
    done = evaluate(detectors, half_large, validation, trainings=groups, bootstrap=FEW)
    compared = table(done, "Paired difference between arms")
    same = row(compared, "a minus b", "95 %").values["top 1, IoU > 0.5"]
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    less = row(compared, "a minus large", "95 %").values["top 1, IoU > 0.5"]
    assert less.mean == 0.25
    assert 0 <= less.low < 0.25 < less.high <= 0.5


def test_one_arm_alone_is_compared_with_none(half_large: list[Path], validation: list[Path]) -> None:
    groups = {"a": ["a 1", "a 2"]}
    done = evaluate({"a 1": sees(1), "a 2": sees(12)}, half_large, validation, trainings=groups, bootstrap=FEW)
    assert "Paired difference between arms" not in [one.title for one in done.tables]
    assert [one.method for one in table(done, "Accuracy over the IoU asked for").rows] == ["a"] * 3


def test_accuracy_over_the_iou_is_strict_and_pools_trainings(tmp_path: Path, validation: list[Path]) -> None:
    """Boxes with 12, 14 and 18 of 20 rows have IoUs of .6, .7 and .9 exactly: right below that, not at it."""
    test = [write_sample(tmp_path / "t" / "a.npz", "p", [(20, 20, 10)])]
    detectors = {"first": overlapping(12), "two 1": overlapping(14), "two 2": overlapping(18)}
    done = evaluate(detectors, test, validation, trainings={"two": ["two 1", "two 2"]}, bootstrap=FEW)
    accuracy = table(done, "Accuracy over the IoU asked for")
    for way in ("top 1", "top 3", "above threshold"):
        means = {arm: [value.mean for value in row(accuracy, arm, way).values.values()] for arm in ("first", "two")}
        assert means == {"first": [1, 0, 0, 0, 0], "two": [1, 1, 0.5, 0.5, 0]}
    assert list(row(accuracy, "first").values) == [f"IoU > {iou}" for iou in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert "first 1, two 2" in accuracy.notes[-1]


def test_images_without_lesions_have_a_table_of_false_positives(tmp_path: Path, validation: list[Path]) -> None:
    test = [
        write_sample(tmp_path / "t" / "a.npz", "p", [(10, 10, 10)]),
        write_sample(tmp_path / "t" / "b.npz", "q", []),
        write_sample(tmp_path / "t" / "c.npz", "q", [], grazed=[(20, 20, 10)]),
    ]
    done = evaluate({"arm": says(((20, 20, 10), 0.9), ((45, 45, 8), 0.2))}, test, validation, bootstrap=FEW)
    free = row(table(done, "False positives per lesion-free image"), "arm")
    assert free.condition == "1 images"
    assert {name: value.mean for name, value in free.values.items()} == {"FP at threshold": 2, "FP in all": 2}


def test_tables_and_curves_can_be_read_back(tmp_path: Path, validation: list[Path]) -> None:
    test = [write_sample(tmp_path / "t" / f"{k}.npz", f"p{k}", [(20, 20, 10)]) for k in range(2)]
    told: list[tuple[str, int, int]] = []
    done = evaluate(
        {"arm": sees(1)}, test, validation, bootstrap=FEW, on_progress=lambda *progress: told.append(progress)
    )
    curves = json.loads(done.curves_json())
    assert list(curves) == ["arm"]
    assert curves["arm"]["sensitivity"] == [1] * len(curves["arm"]["rates"])
    assert told == [("validation", 1, 2), ("validation", 2, 2), ("test", 1, 2), ("test", 2, 2)]
    assert "| arm | 1 [1, 1] |" in table(done, "FROC").markdown()


def test_what_cannot_be_compared_is_refused(tmp_path: Path, validation: list[Path]) -> None:
    test = [write_sample(tmp_path / "t" / "a.npz", "p", [(20, 20, 10)])]
    with pytest.raises(ModelError, match="no detector"):
        evaluate({}, test, validation)
    with pytest.raises(ModelError, match="no prepared samples for test"):
        evaluate({"arm": says()}, [], validation)
    with pytest.raises(ModelError, match="1 patients are in both"):
        evaluate({"arm": says()}, [*test, validation[0]], validation)
    with pytest.raises(ModelError, match="no lesion in the test"):
        evaluate({"arm": says()}, [write_sample(tmp_path / "t" / "b.npz", "q", [])], validation)


def test_a_finding_in_a_scan_is_right_within_the_radius() -> None:
    inside = np.ones((1, 3, 3), np.bool_)
    lesion = PlantedLesion("liver", (4.0, 20.0, 30.0), 16.0, 50.0, (slice(2, 3), slice(19, 22), slice(29, 32)), inside)
    volume = np.zeros((4, 40, 40), np.float32)
    scan = LabelledVolume(volume, (2.0, 1.0, 1.0), (lesion,), "p", "f", noise_free=True)

    axes = Axes(2, ((0, 0), (1, 0)), ((0, 0), (0, 1)), 1.0, 1.0)

    def finding(row: int, column: int, score: float) -> Found:
        box = (slice(2, 3), slice(row - 1, row + 2), slice(column - 1, column + 2))
        region = Region(box, inside, inside.astype(np.float32), 0.5)
        return Found("liver", score, 0.5, region, axes, SITES["liver"], None)

    # 8 mm from (20, 30) is the radius: 8 columns away touches, 9 do not.
    outcome = scan_outcome([finding(20, 38, 0.4), finding(20, 39, 0.9)], scan)
    assert outcome.found_at.tolist() == [0.4]
    assert outcome.false.tolist() == [0.9]


class Silent(Detector):
    """Finds nothing."""

    def detect(self, hu: torch.Tensor, *, masks: bool = True, least_score: float | None = None) -> list[Detections]:
        nothing = torch.zeros(0)
        one = Detections(torch.zeros(0, 4), nothing, nothing.long(), torch.zeros(0, 2), torch.zeros(0, 28, 28))
        return [one] * len(hu)


def test_whole_scans_have_a_table_of_what_is_found_and_one_of_what_scores_mean(tiny: NetworkConfig) -> None:
    empty = LabelledVolume(np.zeros((4, 40, 40), np.float32), (2.0, 1.0, 1.0), (), "p", "f", noise_free=True)
    scans, scores = evaluate_scans({"arm": Silent(tiny)}, [empty], bootstrap=FEW)
    assert [(one.condition, one.values["FP per scan"].mean) for one in scans.rows] == [("1 scans without", 0)]
    assert scores.rows == ()
    with pytest.raises(ModelError, match="no scans"):
        evaluate_scans({"arm": Silent(tiny)}, [], bootstrap=FEW)
