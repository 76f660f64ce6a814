"""One processed CT study of every kind of result, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from gate import made
from models.contract import Findings, Radiograph, Volume
from node.dicom.read import read_radiograph, read_volume
from node.dicom.write import Produced, SeriesSource, Stamp, write_images, write_report


@dataclass(frozen=True)
class Run:
    """Everything that goes into the results of one series, and the results."""

    paths: list[Path]
    grid: Volume | Radiograph
    source: SeriesSource
    stamp: Stamp
    findings: Findings
    images: list[Produced]
    reports: list[Produced]

    @property
    def results(self) -> list[Produced]:
        return [*self.images, *self.reports]


def process(paths: Sequence[Path], *, lesions: int = 0, stamp: Stamp | None = None, **changes: Any) -> Run:
    """Read, find, write: as the jobs do it. `changes` are fields of the findings."""
    source = SeriesSource.load(paths)
    modality = source.first.Modality
    grid: Volume | Radiograph = read_volume(paths) if modality == "CT" else read_radiograph(paths[0])
    stamp = stamp or made.stamp(study_instance_uid=str(source.first.StudyInstanceUID))
    findings = replace(made.findings(grid, lesions=lesions), **changes)
    images = list(write_images(findings, grid, source, stamp))
    entry = made.entry(source, findings, grid, [image.ref for image in images])
    reports = write_report(made.study(entry), {source.series_instance_uid: source}, stamp)
    return Run(list(paths), grid, source, stamp, findings, images, reports)


def parsed(result: Produced) -> Any:
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(result.data))


@pytest.fixture(scope="session")
def run_of() -> Any:
    return process


@pytest.fixture(scope="session")
def read_back() -> Any:
    return parsed


@pytest.fixture(scope="session")
def ct_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return process(made.ct_series(tmp_path_factory.mktemp("ct")), lesions=2)


@pytest.fixture(scope="session")
def dx_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return process(made.radiograph(tmp_path_factory.mktemp("dx")))
