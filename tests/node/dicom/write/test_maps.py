"""Maps as pages: what they say, in which series, and that nothing can be taken for the radiograph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate import made
from gate.gate import complaints
from images import chest
from models.contract import Findings, Map, Radiograph
from node.dicom.read import read_radiograph, read_volume
from node.dicom.write import SeriesSource, write_images
from node.dicom.write.maps import SIGNED
from node.errors import AnalysisFailed
from node.pipelines.chest_xray import chest_xray
from node.pipelines.models import Models


def restored(folder: Path, **elements: Any) -> tuple[list[Path], Radiograph, Findings]:
    """A radiograph as a file, read, and restored with maps."""
    paths = made.chest(folder, **elements)
    image = read_radiograph(paths[0])
    findings = chest_xray(image, Models(restorer=chest.restorer()), chest.ignore, maps=True)
    assert [one.kind for one in findings.maps] == ["change", "uncertainty"]
    return paths, image, findings


def results(folder: Path, **elements: Any) -> tuple[list[Path], list[Any]]:
    paths, image, findings = restored(folder, **elements)
    return paths, list(write_images(findings, image, SeriesSource.load(paths), made.stamp()))


def test_maps_are_two_pages_of_a_series_of_their_own(tmp_path: Path, read_back: Any) -> None:
    _, produced = results(tmp_path)
    assert [(one.kind, one.label) for one in produced] == [
        ("derived", "AI restored"),
        ("sc", "AI change map"),
        ("sc", "AI uncertainty map"),
        ("sc", "AI summary page"),
    ]
    derived, change, uncertainty, summary = (read_back(one) for one in produced)
    assert change.SeriesInstanceUID == uncertainty.SeriesInstanceUID
    assert len({ds.SeriesInstanceUID for ds in (derived, change, summary)}) == 3
    assert (change.InstanceNumber, uncertainty.InstanceNumber) == (1, 2)
    assert (derived.SeriesNumber, change.SeriesNumber, summary.SeriesNumber) == (9073, 9079, 9071)
    assert change.SeriesDescription.startswith("AI maps ")
    assert list(change.ImageType) == ["DERIVED", "SECONDARY", "OTHER", "AI_MAP"]
    assert change.Modality == "OT"
    assert len({one.group for one in produced}) == 4


@pytest.mark.parametrize("stated", ["YES", "NO", None])
def test_what_is_burned_in_is_what_the_radiograph_says(stated: str | None, tmp_path: Path, read_back: Any) -> None:
    said = {} if stated is None else {"BurnedInAnnotation": stated}
    _, produced = results(tmp_path, sop_class=made.CR, **said)
    pages = [read_back(one) for one in produced if one.label.endswith("map")]
    assert [ds.get("BurnedInAnnotation") for ds in pages] == [stated, stated]


def test_the_map_is_drawn_in_colour_where_something_changed(tmp_path: Path, read_back: Any) -> None:
    paths, image, findings = restored(tmp_path)
    change = np.zeros_like(image.pixels)
    change[100:150, 100:150], change[200:250, 100:150] = 10, -10
    half = replace(findings.maps[0], array=change, limits=(-10.0, 10.0))
    produced = write_images(replace(findings, maps=(half,)), image, SeriesSource.load(paths), made.stamp())
    pixels = read_back(list(produced)[1]).pixel_array[112 : 112 + 498, 615 : 615 + 498]
    scale = 498 / 320
    at = [pixels[round(row * scale), round(125 * scale)] for row in (125, 225, 175)]
    np.testing.assert_allclose(at, [SIGNED[-1], SIGNED[0], SIGNED[2]], atol=3)


def test_the_patient_is_not_written_on_the_page(tmp_path: Path, read_back: Any) -> None:
    one = results(tmp_path / "a")[1][1]
    other = results(tmp_path / "b", PatientName="Other^Name", PatientID="P-99")[1][1]
    assert np.array_equal(read_back(one).pixel_array, read_back(other).pixel_array)


def test_the_gate_has_nothing_against_maps(tmp_path: Path) -> None:
    paths, produced = results(tmp_path / "in")
    assert complaints(made.keep(tmp_path / "out", produced), paths) == []


@pytest.mark.parametrize("wrong", ["grid", "twice", "volume"])
def test_refuses_maps_that_lie_on_nothing(wrong: str, tmp_path: Path) -> None:
    paths, grid, findings = restored(tmp_path)
    maps: tuple[Map, ...] = findings.maps[:1]
    source: Any = grid
    if wrong == "grid":
        maps = (replace(maps[0], array=maps[0].array[1:]),)
    elif wrong == "twice":
        maps *= 2
    else:
        paths = made.ct_series(tmp_path / "ct")
        source = read_volume(paths)
        findings = made.findings(source)
    with pytest.raises(AnalysisFailed):
        list(write_images(replace(findings, maps=maps), source, SeriesSource.load(paths), made.stamp()))
