"""One processed CT study and one radiograph with every kind of result, made once."""

from __future__ import annotations

from typing import Any

import pydicom
import pytest

from gate import made
from node.dicom.write import Produced


def parsed(result: Produced) -> Any:
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(result.data))


@pytest.fixture(scope="session")
def run_of() -> Any:
    return made.process


@pytest.fixture(scope="session")
def read_back() -> Any:
    return parsed


@pytest.fixture(scope="session")
def ct_run(tmp_path_factory: pytest.TempPathFactory) -> made.Run:
    return made.process(made.ct_series(tmp_path_factory.mktemp("ct")), lesions=2)


@pytest.fixture(scope="session")
def dx_run(tmp_path_factory: pytest.TempPathFactory) -> made.Run:
    return made.process(made.radiograph(tmp_path_factory.mktemp("dx")))
