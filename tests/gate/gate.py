"""The conformance gate: everything that must hold of the results of one study, as a list of complaints.

    from gate.gate import complaints
    assert complaints(produced_files, source_files) == []

An empty list means that dicom3tools, DCMTK, dcmqi, highdicom and pydicom (strict) have nothing against any object, that
every reference resolves, and that geometry, values, codes and the layout of reports are right. test_gate.py plants
mistakes and sees each one found, so that a gate that has died shows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gate import forms, own, report, tools
from gate.files import Case, Complaint

Check = Callable[[Case], Iterator[Complaint]]

CHECKS: dict[str, Check] = {
    "iod": tools.iod,
    "entity": tools.entity,
    "srtree": tools.srtree,
    "ps": tools.ps,
    "tid1500": tools.tid1500,
    "segread": tools.segread,
    "strict": tools.strict,
    "hdread": tools.hdread,
    "identity": own.identity,
    "refs": own.refs,
    "derived": own.derived,
    "segmentation": own.segmentation,
    "codes": own.codes,
    "layout": report.layout,
    "values": report.values,
    "forms": forms.forms,
}
OWN = ("identity", "refs", "derived", "segmentation", "codes", "layout", "values", "forms")
"""Checks that start no program: milliseconds per object."""


PROGRAMS = {"iod": "dciodvfy", "entity": "dcentvfy", "srtree": "dsrdump", "ps": "dcmpschk"}
"""Not from a Python package: dicom3tools and dcmtk of the system."""


def complaints(
    produced: Sequence[Path], sources: Sequence[Path], *, checks: Sequence[str] = tuple(CHECKS)
) -> list[Complaint]:
    """All complaints of the named checks (all of them by default), in their order.

    Where a program is not installed the test is skipped; where CI is set it fails.
    """
    for program in (PROGRAMS[name] for name in checks if name in PROGRAMS):
        if shutil.which(program) is None and not os.environ.get("CI"):
            pytest.skip(f"{program} is not installed")
    case = Case.read(produced, sources)
    return [complaint for name in checks for complaint in CHECKS[name](case)]
