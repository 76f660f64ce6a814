"""Results of real studies through the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from gate import made
from gate.gate import complaints
from images.shared import needs_shared_data, unpack

pytestmark = needs_shared_data

STUDIES = ["ct-cptac-c3n-00249", "ct-tcga-ov-09-2043", "ct-phantom-philips", "ct-tcga-lihc-a10x"]
EVERY = {"ct-cptac-c3n-00249": 10, "ct-tcga-ov-09-2043": 20, "ct-tcga-lihc-a10x": 4}
"""One slice in so many: enough of a long series to be a volume, few enough to be quick."""
RADIOGRAPHS = ["RG1_J2KI.dcm", "RG3_J2KI.dcm", "dx_image.dcm"]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("name", STUDIES)
def test_the_gate_has_nothing_against_results_of_a_real_ct(
    name: str, unpacked: Path, run_of: Any, tmp_path: Path
) -> None:
    paths = [path for path in unpack(name, unpacked) if path.suffix == ".dcm"]
    paths.sort(key=lambda path: float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]))
    run = run_of(paths[:: EVERY.get(name, 1)], lesions=1)
    assert complaints(made.keep(tmp_path, run.results), run.paths) == []


@pytest.mark.parametrize("name", RADIOGRAPHS)
def test_the_gate_has_nothing_against_results_of_a_real_radiograph(
    name: str, unpacked: Path, run_of: Any, tmp_path: Path
) -> None:
    path = next(path for path in unpack("odd-dicom", unpacked) if path.name == name)
    run = run_of([path], lesions=1)
    assert complaints(made.keep(tmp_path, run.results), run.paths) == []
