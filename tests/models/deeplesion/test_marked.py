"""A lesion table to training samples: boxes and slices where they lie, ellipses through the ends."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.contract import ModelError
from models.deeplesion.config import CATEGORIES, UNKNOWN_CATEGORY, DeepLesionConfig, TrainConfig
from models.deeplesion.data import SampleStore
from models.deeplesion.marked import ellipse, make_marked_samples, marked_sample
from models.deeplesion.samples import load_sample
from models.deeplesion.table import LesionRow, LesionType, Split, box_of, image_path, write_image, write_table

CONFIG = DeepLesionConfig()
POINTS = ((20.0, 40.0), (60.0, 40.0), (40.0, 30.0), (40.0, 50.0))


def row(**changes: object) -> LesionRow:
    """A lesion at x 20…60, y 30…50 (0-based centres) of a 100 × 120 image, key slice 7 of 4…10 at 1.5 mm."""
    plain = LesionRow(
        patient=1,
        study=1,
        series=1,
        key_slice=7,
        points_px=POINTS,
        box_px=box_of(POINTS),
        diameters_px=(40.0, 20.0),
        slice_range=(4, 10),
        spacing_mm=(0.8, 0.8, 1.5),
        image_size=(120, 100),
        window_hu=(-175.0, 275.0),
        split=Split.TRAIN,
        lesion_type=LesionType.LIVER,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Slices 4 to 10, HU ten times their index."""
    for index in range(4, 11):
        path = tmp_path / "Images_png" / image_path(f"000001_01_01_{index:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.full((100, 120), 10 * index))
    return tmp_path


def test_the_box_is_the_tables_half_a_pixel_on(folder):
    sample = marked_sample(folder, [row()], CONFIG)
    assert sample.boxes.tolist() == [[15.5, 25.5, 65.5, 55.5]]
    assert sample.category.tolist() == [CATEGORIES.index("liver")]
    assert sample.annotated.tolist() == [True]
    assert sample.patient == "marks.000001"


def test_neighbours_lie_at_two_millimetres_feet_first(folder):
    """At 1.5 mm, 2 mm towards the feet is index 7 + 4/3, and the table's index rises towards the feet."""
    sample = marked_sample(folder, [row()], CONFIG)
    assert sample.hu.shape == (3, 100, 120)
    assert sample.hu[:, 50, 50].tolist() == pytest.approx([70 + 40 / 3, 70, 70 - 40 / 3], abs=1e-3)


def test_a_missing_neighbour_is_replaced_by_the_nearest(folder):
    for index in (5, 9):
        (folder / "Images_png" / image_path(f"000001_01_01_{index:03d}.png")).unlink()
    sample = marked_sample(folder, [row()], CONFIG)
    assert sample.hu[:, 50, 50].tolist() == pytest.approx([80, 70, 60], abs=1e-3)


@pytest.mark.parametrize("interval", [math.nan, 0.0])
def test_an_unknown_interval_repeats_the_key_slice(folder, interval):
    sample = marked_sample(folder, [row(spacing_mm=(0.8, 0.8, interval))], CONFIG)
    assert (sample.hu == 70).all()


def test_other_pixels_scale_the_box(folder):
    sample = marked_sample(folder, [row(spacing_mm=(0.4, 0.4, 1.5))], CONFIG)
    assert sample.hu.shape == (3, 50, 60)
    assert sample.boxes.tolist() == [[7.75, 12.75, 32.75, 27.75]]


def test_the_ellipse_goes_through_the_ends():
    inside = ellipse(POINTS, (100, 120))
    area = math.pi / 4 * 40 * 20
    assert inside.sum() == pytest.approx(area, rel=0.03)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (30, 50, 20, 60)


def test_quarter_ellipses_of_an_uneven_cross():
    """Axes that cross off the middle: each quarter has its own half axes."""
    inside = ellipse(((20.0, 40.0), (60.0, 40.0), (30.0, 30.0), (30.0, 50.0)), (100, 120))
    left, right = inside[:, :30].sum(), inside[:, 31:].sum()
    assert left == pytest.approx(math.pi / 2 * 10 * 10, rel=0.1)
    assert right == pytest.approx(math.pi / 2 * 30 * 10, rel=0.1)
    assert not ellipse(((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)), (10, 10)).any()


def test_a_table_becomes_samples_by_its_split_without_noisy_rows(folder, tmp_path):
    other = {"points_px": tuple((x + 40, y + 30) for x, y in POINTS)}
    rows = [row(), row(**other, box_px=box_of(other["points_px"])), row(noisy=True, key_slice=8)]
    rows.append(row(patient=2, split=Split.TEST, lesion_type=LesionType.UNLABELLED))
    write_table(folder / "DL_info.csv", rows)
    path = folder / "Images_png" / image_path(rows[-1].file_name)
    path.parent.mkdir()
    write_image(path, np.zeros((100, 120), np.int32))
    made = make_marked_samples(folder, tmp_path / "out", CONFIG)
    assert [path.relative_to(tmp_path / "out").parts[0] for path in made] == ["train", "test"]
    both, unlabelled = (load_sample(path) for path in made)
    assert len(both.boxes) == 2
    assert set(np.unique(both.labels)) == {0, 1, 2}
    assert unlabelled.category.tolist() == [UNKNOWN_CATEGORY]
    again = {path: path.stat().st_mtime_ns for path in made}
    assert make_marked_samples(folder, tmp_path / "out", CONFIG) == made
    assert {path: path.stat().st_mtime_ns for path in made} == again


def test_samples_of_a_set_that_has_grown_are_made_anew(folder, tmp_path):
    write_table(folder / "DL_info.csv", [row()])
    (path,) = make_marked_samples(folder, tmp_path / "out", CONFIG)
    moved = tuple((x + 40, y + 30) for x, y in POINTS)
    write_table(folder / "DL_info.csv", [row(), row(points_px=moved, box_px=box_of(moved))])
    assert make_marked_samples(folder, tmp_path / "out", CONFIG) == [path]
    assert len(load_sample(path).boxes) == 2
    write_image(folder / "Images_png" / image_path(row().file_name), np.full((100, 120), 77, np.int32))
    make_marked_samples(folder, tmp_path / "out", CONFIG)
    assert (load_sample(path).hu[1] == 77).any()


def test_samples_follow_rows_that_were_replaced_or_dropped(folder, tmp_path):
    write_table(folder / "DL_info.csv", [row(), row(key_slice=8)])
    for index in (7, 8):
        write_image(folder / "Images_png" / image_path(row(key_slice=index).file_name), np.zeros((100, 120), np.int32))
    kept, dropped = make_marked_samples(folder, tmp_path / "out", CONFIG)
    beside = tmp_path / "out" / "train" / "mird.1-00.npz"
    beside.write_bytes(kept.read_bytes())
    moved = tuple((x + 40, y + 30) for x, y in POINTS)
    write_table(folder / "DL_info.csv", [row(points_px=moved, box_px=box_of(moved))])
    assert make_marked_samples(folder, tmp_path / "out", CONFIG) == [kept]
    assert load_sample(kept).boxes.tolist() == [[55.5, 55.5, 105.5, 85.5]]
    assert (dropped.exists(), beside.exists()) == (False, True)


def test_what_nobody_measured_can_be_ignored_and_is_a_target_without_that(folder, tmp_path):
    moved = tuple((x + 40, y + 30) for x, y in POINTS)
    drawn = row(points_px=moved, box_px=box_of(moved), origin="SEG (derived)")
    write_table(folder / "DL_info.csv", [drawn, row(origin="GSPS"), replace(drawn, key_slice=8)])
    measured = replace(CONFIG, data=replace(CONFIG.data, derived_marks=False))
    all_of_them = make_marked_samples(folder, tmp_path / "out", CONFIG)
    assert [load_sample(path).boxes.shape for path in all_of_them] == [(2, 4), (1, 4)]
    (path,) = make_marked_samples(folder, tmp_path / "out", measured)
    assert not all_of_them[1].exists()
    sample = load_sample(path)
    assert sample.boxes.tolist() == [[15.5, 25.5, 65.5, 55.5]]
    assert sample.ignore.tolist() == [[55.5, 55.5, 105.5, 85.5]]
    assert set(np.unique(sample.labels)) == {0, 1}
    before = path.stat().st_mtime_ns
    assert make_marked_samples(folder, tmp_path / "out", measured) == [path]
    assert path.stat().st_mtime_ns == before


def test_an_uncategorised_lesion_is_a_target_of_an_unknown_kind(folder, tmp_path):
    write_table(folder / "DL_info.csv", [row(lesion_type=LesionType.UNLABELLED)])
    files = make_marked_samples(folder, tmp_path / "out", CONFIG)
    training = TrainConfig(steps=1, batch=3, crop_px=96, lesion_share=1.0)
    many = SampleStore(files, seed=1, categories=5).batch(0, training).targets
    one = SampleStore(files, seed=1, categories=1).batch(0, training).targets
    assert all(target.category.tolist() == [UNKNOWN_CATEGORY] and not len(target.ignore) for target in many)
    assert all(len(target.boxes) == 1 and target.category.tolist() == [0] for target in one)


def test_a_missing_key_slice_is_named(folder):
    with pytest.raises(ModelError, match=r"099\.png"):
        marked_sample(folder, [row(key_slice=99)], CONFIG)
