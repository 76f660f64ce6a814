from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageDraw

from gate import made
from gate.gate import complaints
from images import chest
from node.dicom.read import read_radiograph, read_volume
from node.dicom.write import SeriesSource, capture, display, page


def _page(run: Any, read_back: Any) -> Any:
    return read_back(next(result for result in run.images if result.kind == "sc"))


def test_the_page_is_a_colour_image(ct_run: Any, read_back: Any) -> None:
    ds = _page(ct_run, read_back)
    assert ds.ConversionType == "WSD"
    assert ds.SeriesDescription == "AI summary CT Thorax 2.5 B40f"
    assert ds.SeriesNumber == 9031
    assert ds.pixel_array.shape == (1050, 1200, 3)


@pytest.mark.parametrize("stated", ["NO", None, ""])
def test_what_is_burned_in_is_what_the_pictured_image_says(
    stated: str | None, run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    run = run_of(
        made.radiograph(tmp_path, sop_class=made.CR, **({} if stated is None else {"BurnedInAnnotation": stated}))
    )
    ds = _page(run, read_back)
    assert ds.get("BurnedInAnnotation") == (stated or None)
    assert ds.pixel_array[130:300, 40:300].std() > 10


def test_pictures_with_words_burned_in_are_kept_off_the_page(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.radiograph(tmp_path / "in", BurnedInAnnotation="YES"))
    ds = _page(run, read_back)
    assert ds.BurnedInAnnotation == "NO"
    quiet = run_of(made.radiograph(tmp_path / "other", shape=(64, 31), BurnedInAnnotation="YES"))
    assert np.array_equal(ds.pixel_array, _page(quiet, read_back).pixel_array), "no pixel is of the radiograph"
    amber = (ds.pixel_array == (255, 196, 80)).all(axis=-1)
    assert amber[112:].any(), "it is said why"
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


def test_the_name_of_the_patient_changes_no_pixel(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    one = run_of(made.ct_series(tmp_path / "a"))
    other = run_of(made.ct_series(tmp_path / "b", PatientName="Other^Name", PatientID="P-99"))
    assert np.array_equal(_page(one, read_back).pixel_array, _page(other, read_back).pixel_array)


def test_panels_show_the_middle_slice_before_and_after(ct_run: Any, read_back: Any) -> None:
    pixels = _page(ct_run, read_back).pixel_array
    before, after, difference = (pixels[130:400, left : left + 300, 0] for left in (40, 430, 820))
    assert before.std() > 10
    assert 0 < np.abs(before.astype(int) - after).mean() < before.std()
    assert abs(float(np.median(difference)) - 127.5) < 30


def test_a_radiograph_gets_a_page_too(dx_run: Any, read_back: Any) -> None:
    assert _page(dx_run, read_back).pixel_array[130:300, 40:300].std() > 10


@pytest.mark.parametrize(
    ("window", "shown"),
    [((2000.0, 1000.0), (1500.0, 2500.0)), ((900000.0, 10.0), None), ((-50.0, 40.0), None), (None, None)],
)
def test_a_window_that_shows_nothing_is_not_that_of_the_page(window: Any, shown: Any) -> None:
    projection = replace(chest.radiograph(), window=window)
    assert capture.radiograph_window(projection) == (shown or display.span(projection.pixels))


def test_no_number_lies_over_a_picture() -> None:
    """It would hide the marker of a side."""
    grey = np.zeros((40, 40), np.float32)
    drawn = page.summary("t", "s", [page.Panel("p", grey, 1.0, (0.0, 255.0), "HU")], [])
    assert (drawn[112 : 112 + 338, 30 : 30 + 338] == 0).all()


@pytest.mark.parametrize(
    ("orientation", "edges"),
    [
        ((1, 0, 0, 0, 1, 0), ("R", "A")),
        ((-1, 0, 0, 0, -1, 0), ("L", "P")),
        ((1, 0, 0, 0, 0, -1), ("R", "H")),
        ((0, 1, 0, 0, 0, -1), ("A", "H")),
    ],
)
def test_the_edges_of_a_slice_are_named_by_its_orientation(
    orientation: tuple[float, ...], edges: tuple[str, str], tmp_path: Path
) -> None:
    paths = made.ct_series(tmp_path, orientation=orientation)
    assert capture.edges(read_volume(paths), SeriesSource.load(paths)) == edges


@pytest.mark.parametrize(
    ("stated", "edges"),
    [(["L", "F"], ("R", "H")), (["PR", "H"], ("AL", "F")), (None, ("", "")), ("L", ("", ""))],
)
def test_the_edges_of_a_radiograph_are_those_of_its_header(stated: Any, edges: tuple[str, str], tmp_path: Path) -> None:
    paths = made.radiograph(tmp_path, PatientOrientation=stated)
    assert capture.edges(read_radiograph(paths[0]), SeriesSource.load(paths)) == edges


def test_the_ends_of_a_narrow_window_are_told_apart() -> None:
    dark = np.full((40, 40), -9.0, np.float32)
    one, other = (page.map_page("t", "s", [page.Panel("p", dark, 1.0, (0.2, high), "")], []) for high in (3.4, 3.3))
    assert not np.array_equal(one, other)


def test_cautions_stand_between_lesions_and_what_was_done(ct_run: Any) -> None:
    findings = replace(ct_run.findings, notes=("Lesions are candidates.",))
    numbers = list(range(1, len(ct_run.grid.sources) + 1))
    lines = capture.summary_lines(findings, ("Slices missing: 1.",), numbers)
    said = [line.text for line in lines]
    caution = said.index("Lesions are candidates.")
    assert lines[caution].style == "warning"
    assert said[caution + 1] == "Slices missing: 1."
    assert [text.split(":")[0] for text in said[:2]] == ["Lesion 1", "Lesion 2"]
    done = [place for place, text in enumerate(said) if " done. " in text and " not done. " not in text]
    assert done
    assert caution < min(done)


def test_the_strip_shows_poor_slices_in_amber_below_the_line() -> None:
    strip = page.Strip("Quality", (3.0,) * 30 + (1.0,) * 10, (0.0, 4.0), None, (1, 40))
    plain = page.summary("t", "s", (), [], strip)
    limited = page.summary("t", "s", (), [], page.Strip("Quality", strip.values, strip.scale, 1.5, strip.ends))
    amber = (limited == (255, 196, 80)).all(axis=-1)
    assert not (plain == (255, 196, 80)).all(axis=-1).any()
    rows, columns = np.nonzero(amber)
    lowest = rows == rows.max()
    assert columns[lowest].min() > 64 + 0.7 * (1170 - 64), "the last quarter of the slices is the poor one"
    assert rows.max() - rows.min() == pytest.approx(84 * 0.5 / 4, abs=2), "the limit is half a grade above them"


def test_a_single_slice_and_values_beyond_the_scale_stay_in_the_strip() -> None:
    strip = page.Strip("Quality", (9.0,), (0.0, 4.0), 1.5, (7, 7))
    pixels = page.summary("t", "s", (), [], strip)
    assert pixels.shape == (1050, 1200, 3)
    assert (pixels[:, -25:] == pixels[0, 0]).all()


def test_long_words_and_many_lines_stay_on_the_page() -> None:
    lines = [page.Line("word " * 60), page.Line("x" * 400, "warning")] * 12
    pixels = page.summary("title", "subtitle " * 40, (), lines)
    assert pixels.shape == (900, 1200, 3)
    background = pixels[0, 0]
    assert (pixels[:, -25:] == background).all()
    assert (pixels[-25:] == background).all()


def test_a_text_page_grows_with_its_text_up_to_a_limit() -> None:
    assert page.text_page("t", "s", [page.Line("one")]).shape == (900, 1200, 3)
    tall = page.text_page("t", "s", [page.Line(f"line {number}") for number in range(60)])
    assert tall.shape[0] > 1800
    assert page.text_page("t", "s", [page.Line("line")] * 1000).shape == (4000, 1200, 3)


def test_a_page_in_place_of_a_report_refers_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets it has no structured report."""
    drawn: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda _draw, _place, text, **_more: drawn.append(text))
    page.text_page("t", "s", [page.Line("line")] * 1000)
    assert re.fullmatch(r"[0-9]+ are left: they do not fit on this page", drawn[-1])
    page.summary("t", "s", (), [page.Line("line")] * 1000)
    assert re.fullmatch(r"[0-9]+ more in the report", drawn[-1])


def test_the_same_words_make_the_same_pixels() -> None:
    one, other = (page.text_page("t", "s", [page.Line("Rauschen σ, Ångström")]) for _ in range(2))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Series 7, 胸部 正面, 1 image", "Series 7, [other script], 1 image"),
        ("صدر 2", "[other script] 2"),
        ("Грудь Θώραξ Müller ±2", "Грудь Θώραξ Müller ±2"),
        ("e\u0301", "é"),
        ("", ""),
    ],
)
def test_what_the_font_cannot_draw_is_said_and_not_drawn_as_boxes(text: str, shown: str) -> None:
    assert page.drawable(text) == shown
    one, other = (page.summary("t", words, (), [page.Line(words)]) for words in (text, shown))
    assert np.array_equal(one, other)
