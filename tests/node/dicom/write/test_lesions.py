from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gate import made, quirks
from gate.gate import complaints
from models.contract import Lesion
from node.dicom.read import read_volume
from node.dicom.write import Produced, SeriesSource, lesions, page

AMBER = (255, 196, 80)
SHAPE = (120, 150)


def _pages(folder: Path, how_many: int, *, fault: quirks.Fault | None = None, **changes: Any) -> list[Produced]:
    paths = made.ct_series(folder, shape=SHAPE)
    if fault is not None:
        quirks.plant(fault, paths)
    volume = read_volume(paths)
    found = [replace(made.lesion(volume), tracking_id=f"lesion-{number}", **changes) for number in range(how_many)]
    findings = replace(made.findings(volume), lesions=tuple(found))
    return list(lesions.lesion_pages(findings, volume, SeriesSource.load(paths), made.stamp()))


def _axes(pixels: Any) -> Any:
    """(y, x) of all amber pixels of the first panel, from its corner."""
    return np.argwhere((pixels[112:472, 30:368] == AMBER).all(axis=-1))


def test_the_axes_lie_where_the_lesion_is(read_back: Any, tmp_path: Path) -> None:
    changes = {
        "long_axis_px": ((60.0, 40.0), (100.0, 40.0)),
        "short_axis_px": ((80.0, 30.0), (80.0, 50.0)),
        "long_axis_mm": 28.0,
    }
    (one,) = _pages(tmp_path, 1, **changes)
    pixels = read_back(one).pixel_array
    drawn = _axes(pixels)
    # 112 mm around (80, 40), as far as there is an image: columns 0 to 149, rows 0 to 119
    scale = 338 / 150
    long, short = (drawn[np.abs(drawn[:, k] - middle * scale) <= 1.5] for k, middle in ((0, 40.5), (1, 80.5)))
    for line, along, (first, last) in ((long, 1, (60.5, 100.5)), (short, 0, (30.5, 50.5))):
        centre = (first + last) / 2 * scale
        before, after = line[line[:, along] < centre, along], line[line[:, along] > centre, along]
        assert np.allclose((before.max(), after.min()), (first * scale, last * scale), atol=2)
        assert min(np.ptp(before), np.ptp(after)) > 10, "it points from outside"
    inside = drawn[(np.abs(drawn[:, 1] - 80.5 * scale) < 18 * scale) & (np.abs(drawn[:, 0] - 40.5 * scale) < 8 * scale)]
    assert len(inside) == 0, "nothing lies over the lesion"


def test_where_there_is_no_picture_outside_the_mark_lies_inside() -> None:
    grey = np.zeros((40, 40), np.float32)
    plain, marked = (
        page.small_panels("t", "s", [page.Panel("p", grey, 1.0, (0, 1), "", axes=axes)], [])
        for axes in ((), (((0.0, 20.0), (39.0, 20.0)),))
    )
    rows, columns = np.nonzero((plain != marked).any(axis=-1))
    assert (columns.min() >= 30) & (columns.max() < 30 + 338)
    assert {int(rows.min()) // 10, int(rows.max()) // 10} == {(112 + round(20.5 * 338 / 40)) // 10}


def test_a_lesion_of_one_pixel_is_marked(tmp_path: Path) -> None:
    panel = page.Panel("p", np.zeros((40, 40), np.float32), 1.0, (0, 1), "", axes=(((20.0, 20.0), (20.0, 20.0)),))
    assert len(_axes(page.small_panels("t", "s", [panel], []))) > 20


def test_the_sides_of_the_patient_stand_beside_the_picture(read_back: Any, tmp_path: Path) -> None:
    """A patient on the belly is not turned, and so it must be said where right is."""
    supine = read_back(_pages(tmp_path / "supine", 1)[0]).pixel_array
    prone = quirks.says(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    other = read_back(_pages(tmp_path / "prone", 1, fault=prone)[0]).pixel_array
    assert not np.array_equal(supine[112:450, 10:28], other[112:450, 10:28])
    assert not np.array_equal(supine[96:112, 150:250], other[96:112, 150:250])


def test_six_lesions_fit_on_a_page_and_the_seventh_has_another(read_back: Any, tmp_path: Path) -> None:
    pages = [read_back(one) for one in _pages(tmp_path, 7)]
    assert [ds.InstanceNumber for ds in pages] == [2, 3]
    assert [ds.pixel_array.shape for ds in pages] == [(1326, 1200, 3), (900, 1200, 3)]
    assert len({ds.SOPInstanceUID for ds in pages}) == 2
    assert _pages(tmp_path / "none", 0) == []


def test_they_stand_behind_the_summary_of_their_series(ct_run: Any, read_back: Any) -> None:
    summary, pictures = (read_back(result) for result in ct_run.images if result.kind == "sc")
    assert pictures.SeriesInstanceUID == summary.SeriesInstanceUID
    assert (summary.InstanceNumber, pictures.InstanceNumber) == (1, 2)
    assert list(pictures.ImageType) == ["DERIVED", "SECONDARY", "OTHER", "AI_LESIONS"]


def test_pictures_with_words_burned_in_are_left_out(read_back: Any, tmp_path: Path) -> None:
    assert _pages(tmp_path / "yes", 1, fault=quirks.says(BurnedInAnnotation="YES")) == []
    (silent,) = _pages(tmp_path / "silent", 1)
    assert "BurnedInAnnotation" not in read_back(silent)
    (clean,) = _pages(tmp_path / "no", 1, fault=quirks.says(BurnedInAnnotation="NO"))
    assert read_back(clean).BurnedInAnnotation == "NO"


def test_a_nodule_in_lung_is_shown_in_a_lung_window(tmp_path: Path) -> None:
    volume = read_volume(made.ct_series(tmp_path))
    in_lung = replace(volume, voxels=np.full_like(volume.voxels, -850.0))
    windows = [lesions.panel(1, made.lesion(each), 7, each).window for each in (in_lung, _soft(volume))]
    assert windows == [(-1350.0, 150.0), (-160.0, 240.0)]


def test_a_nodule_beside_the_chest_wall_is_shown_in_a_lung_window(tmp_path: Path) -> None:
    volume = read_volume(made.ct_series(tmp_path, shape=SHAPE))
    voxels = np.full_like(volume.voxels, 40.0)
    voxels[:, :, 20:50] = -850.0
    ends = {"long_axis_px": ((30.0, 60.0), (40.0, 60.0)), "short_axis_px": ((35.0, 56.0), (35.0, 64.0))}
    nodule = replace(made.lesion(volume), **ends)
    assert lesions.panel(1, nodule, 7, replace(volume, voxels=voxels)).window == (-1350.0, 150.0)


def _soft(volume: Any) -> Any:
    return replace(volume, voxels=np.full_like(volume.voxels, 40.0))


def test_a_lesion_at_the_border_shows_what_there_is(tmp_path: Path) -> None:
    volume = read_volume(made.ct_series(tmp_path, shape=SHAPE))
    corner: Lesion = replace(
        made.lesion(volume), long_axis_px=((0.0, 0.0), (8.0, 0.0)), short_axis_px=((4.0, 0.0), (4.0, 3.0))
    )
    panel = lesions.panel(3, corner, 12, volume)
    assert panel.pixels.shape == (59, 62)
    assert panel.axes[0] == ((0.0, 0.0), (8.0, 0.0))
    assert panel.title.startswith("Lesion 3, image 12: ")
    assert page.small_panels("t", "s", [panel], []).shape == (900, 1200, 3)


def test_nothing_speaks_against_them(tmp_path: Path) -> None:
    run = made.process(made.ct_series(tmp_path / "in"), lesions=2)
    pages = [result for result in run.images if result.kind == "sc"]
    assert len(pages) == 2
    assert complaints(made.keep(tmp_path / "out", pages), run.paths) == []
