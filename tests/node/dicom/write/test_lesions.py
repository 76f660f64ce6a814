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
    drawn = _axes(read_back(one).pixel_array)
    # 112 mm around (80, 40), as far as there is an image: columns 0 to 149, rows 0 to 119
    scale = 338 / 150
    assert np.allclose(drawn[:, 1].min(), (60.5 * scale), atol=2)
    assert np.allclose(drawn[:, 1].max(), (100.5 * scale), atol=2)
    assert np.allclose(drawn[:, 0].min(), (30.5 * scale), atol=2)
    assert np.allclose(drawn[:, 0].max(), (50.5 * scale), atol=2)


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
