import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.contract import ModelError
from models.deeplesion.table import (
    COLUMNS,
    Box,
    LesionRow,
    LesionType,
    Points,
    Split,
    box_of,
    diameters_of,
    hounsfield,
    image_path,
    merge_boxes,
    read_image,
    read_table,
    stored_values,
    windowed,
    write_image,
    write_table,
)

HEADER = ",".join(COLUMNS)
LINE = (
    '000001_01_01_109.png,1,1,1,109,"233.537, 95.0204, 234.057, 106.977, 231.169, 101.605, 236.252, 101.143",'
    '"226.169, 90.0204, 241.252, 111.977","11.9677, 5.10387","0.44666, 0.283794, 0.434454",3,0,"103, 115",'
    '"0.488281, 0.488281, 5","512, 512","-175, 275",F,62,1'
)
POINTS: Points = ((233.537, 95.0204), (234.057, 106.977), (231.169, 101.605), (236.252, 101.143))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "DL_info.csv"
    path.write_text(f"{HEADER}\n{LINE}\n", encoding="utf8")
    return path


def changed(table: Path, old: str, new: str) -> Path:
    text = table.read_text(encoding="utf8")
    assert text.count(old) == 1
    table.write_text(text.replace(old, new), encoding="utf8")
    return table


def test_the_box_has_the_printed_digits() -> None:
    assert ", ".join(f"{value:.6g}" for value in box_of(POINTS)) == "226.169, 90.0204, 241.252, 111.977"


def test_the_diameters_are_the_printed_ones_within_the_rounding_of_the_coordinates() -> None:
    # Each coordinate is printed to 5e-4 px, so a length between two of them is known to 5e-4·√2·√2.
    assert diameters_of(POINTS) == pytest.approx((11.9677, 5.10387), abs=1e-3)


def test_the_margin_is_the_same_on_all_sides_whatever_the_order_of_the_points() -> None:
    points = [(10.0, 20.0), (14.0, 20.0), (12.0, 19.0), (12.0, 22.0)]
    assert box_of(points) == box_of(points[::-1]) == (5, 14, 19, 27)
    assert box_of(points, margin_px=0) == (10, 19, 14, 22)


def test_reads_a_row_of_the_public_table(table: Path) -> None:
    (row,) = read_table(table)
    assert (row.patient, row.study, row.series, row.key_slice) == (1, 1, 1, 109)
    assert row.points_px[0] == pytest.approx((232.537, 94.0204))
    assert row.points_px[3] == pytest.approx((235.252, 100.143))
    assert row.box_px == pytest.approx((225.169, 89.0204, 240.252, 110.977))
    assert row.box_px == pytest.approx(box_of(row.points_px))
    assert row.diameters_px == (11.9677, 5.10387)
    assert row.diameters_mm == pytest.approx((5.84360, 2.49212), abs=1e-5)
    assert row.location == (0.44666, 0.283794, 0.434454)
    assert row.lesion_type is LesionType.MEDIASTINUM
    assert row.split is Split.TRAIN
    assert not row.noisy
    assert (row.slice_range, row.spacing_mm, row.image_size) == ((103, 115), (0.488281, 0.488281, 5), (512, 512))
    assert (row.window_hu, row.sex, row.age) == ((-175, 275), "F", 62)
    assert row.file_name == "000001_01_01_109.png"


def test_writes_what_it_read_byte_for_byte(table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "made" / "copy.csv"
    write_table(copy, read_table(table))
    assert copy.read_bytes() == table.read_bytes()


def test_unknown_age_interval_and_location_are_nan_in_memory_and_in_the_file(table: Path, tmp_path: Path) -> None:
    changed(table, "F,62,1", "F,NaN,1")
    changed(table, "0.488281, 5", "0.488281, NaN")
    changed(table, "0.44666, 0.283794, 0.434454", "NaN, NaN, NaN")
    (row,) = read_table(table)
    assert math.isnan(row.age)
    assert math.isnan(row.spacing_mm[2])
    assert all(map(math.isnan, row.location))
    write_table(tmp_path / "copy.csv", [row])
    assert (tmp_path / "copy.csv").read_bytes() == table.read_bytes()


def test_an_empty_age_is_unknown(table: Path) -> None:
    (row,) = read_table(changed(table, "F,62,1", "F,,1"))
    assert math.isnan(row.age)


def test_origin_and_institution_have_columns_where_a_row_has_them(table: Path, tmp_path: Path) -> None:
    (public,) = read_table(table)
    harvested = replace(public, origin="SR", institution="House, west", study=2)
    write_table(tmp_path / "own.csv", [public, harvested])
    assert (tmp_path / "own.csv").read_text().splitlines()[0] == HEADER + ",Origin,Institution"
    again = read_table(tmp_path / "own.csv")
    assert [(row.origin, row.institution) for row in again] == [("", ""), ("SR", "House, west")]


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ("226.169, 90.0204, 241.252, 111.977", "226.169, 90.0204, 241.252", "Bounding_boxes"),
        ("226.169, 90.0204, 241.252, 111.977", "241.252, 90.0204, 226.169, 111.977", "Bounding_boxes"),
        ("233.537, 95.0204", "NaN, 95.0204", "Measurement_coordinates"),
        ("233.537, 95.0204", "left, 95.0204", "Measurement_coordinates"),
        ("11.9677, 5.10387", "inf, 5.10387", "Lesion_diameters_Pixel_"),
        ('0.434454",3,0', '0.434454",9,0', "Coarse_lesion_type"),
        ('0.434454",3,0', '0.434454",3,2', "Possibly_noisy"),
        ("103, 115", "103.5, 115", "Slice_range"),
        ("0.488281, 0.488281, 5", "0, 0.488281, 5", "Spacing_mm_px_"),
        ("F,62,1", "F,62,4", "Train_Val_Test"),
        ("F,62,1", "X,62,1", "Patient_gender"),
        ("F,62,1", "F,old,1", "Patient_age"),
        ("_109.png,1,1,1,109", "_109.png,1,1,1,108", "File_name"),
    ],
)
def test_a_wrong_cell_is_named_by_line_and_column(table: Path, old: str, new: str, column: str) -> None:
    with pytest.raises(ModelError, match=f"DL_info.csv, line 2, column {column}: "):
        read_table(changed(table, old, new))


def test_a_patient_in_two_splits_is_refused(table: Path) -> None:
    second = LINE.replace("000001_01_01_109.png,1,1,1", "000001_02_01_109.png,1,2,1").replace("F,62,1", "F,62,3")
    table.write_text(f"{HEADER}\n{LINE}\n{second}\n", encoding="utf8")
    with pytest.raises(ModelError, match=r"line 3, column Train_Val_Test: patient 1 is in two splits"):
        read_table(table)


def test_a_missing_column_or_file_is_named(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no column Image_size"):
        read_table(changed(table, "Image_size", "Size"))
    with pytest.raises(ModelError, match=r"none\.csv: not a readable table"):
        read_table(tmp_path / "none.csv")


_pixels = st.floats(-5, 600, allow_nan=False).map(lambda value: round(value, 2))


@given(xs=st.lists(_pixels, min_size=8, max_size=8), age=st.one_of(st.just(math.nan), st.integers(0, 99).map(float)))
def test_writing_and_reading_keep_six_digits(
    xs: list[float], age: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    points: Points = ((xs[0], xs[1]), (xs[2], xs[3]), (xs[4], xs[5]), (xs[6], xs[7]))
    row = LesionRow(
        7, 12, 3, 1042, points, box_of(points), diameters_of(points), (1000, 1100), (0.7, 0.7, 2.5), (512, 512),
        (-1500, 500), Split.TEST, age=age,
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "row.csv"
    write_table(path, [row])
    (again,) = read_table(path)
    assert np.allclose(again.points_px, row.points_px, atol=1e-3)
    assert np.allclose(again.box_px, row.box_px, atol=1e-3)
    assert again.age == row.age or (math.isnan(again.age) and math.isnan(row.age))
    assert again.file_name == "000007_12_03_1042.png"


def test_the_last_underscore_of_a_name_is_a_folder() -> None:
    assert str(image_path("000001_01_01_109.png")) == "000001_01_01/109.png"


@pytest.mark.parametrize("name", ["../../etc/passwd", "000001_01_01.png", "000001_01_01_109.jpg", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="PPPPPP_SS_RR_NNN"):
        image_path(name)


def test_stored_values_are_exact_at_the_ends() -> None:
    hu = np.array([-32768, -1024, 0, 3071, 32767])
    stored = stored_values(hu)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [0, 31744, 32768, 35839, 65535]
    assert hounsfield(stored).tolist() == hu.tolist()


@pytest.mark.parametrize("hu", [-32769.0, 32768.0, math.nan, math.inf])
def test_values_that_would_wrap_are_refused(hu: float) -> None:
    with pytest.raises(ModelError, match="32767"):
        stored_values(np.array([hu]))


def test_an_image_goes_through_a_png_unchanged(tmp_path: Path) -> None:
    hu = np.array([[-32768, -1024, 0], [3071, 32767, 40]])
    path = tmp_path / "000001_01_01" / "109.png"
    write_image(path, hu)
    assert read_image(path).tolist() == hu.tolist()


def test_an_8_bit_or_missing_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "8.png")
    with pytest.raises(ModelError, match="not a 16-bit"):
        read_image(tmp_path / "8.png")
    with pytest.raises(ModelError, match="missing or damaged"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ModelError, match="missing or damaged"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ModelError, match="not uint16"):
        hounsfield(np.zeros((2, 2), np.int16))  # type: ignore[arg-type]


def test_the_window_clips_at_both_ends() -> None:
    assert windowed(np.array([-1000, -175, 50, 275, 3000]), -175, 275).tolist() == [0, 0, 127.5, 255, 255]
    with pytest.raises(ModelError, match="empty"):
        windowed(np.array([0]), 40, 40)


def test_boxes_that_overlap_are_averaged() -> None:
    # 10 × 10 px each, moved by 1: 90 / 110 = .82; the far one stays alone.
    boxes: list[Box] = [(0, 0, 9, 9), (100, 100, 109, 109), (1, 0, 10, 9)]
    assert merge_boxes(boxes) == [((0.5, 0, 9.5, 9), (0, 2)), ((100, 100, 109, 109), (1,))]


def test_boxes_at_the_limit_stay_apart() -> None:
    # Side 16, moved by 4: 12·16 / (2·256 − 192) = .6 exactly.
    boxes: list[Box] = [(0, 0, 15, 15), (4, 0, 19, 15)]
    assert [members for _, members in merge_boxes(boxes)] == [(0,), (1,)]
    assert merge_boxes(boxes, overlap=0.59) == [((2, 0, 17, 15), (0, 1))]


def test_three_marks_of_one_lesion_become_their_mean() -> None:
    boxes: list[Box] = [(0, 0, 29, 29), (1, 0, 30, 29), (2, 0, 31, 29)]
    assert merge_boxes(boxes) == [((1, 0, 30, 29), (0, 1, 2))]


def test_no_boxes_merge_to_none() -> None:
    assert merge_boxes([]) == []
