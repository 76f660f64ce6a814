"""Produced and received files as the checks of the gate see them, and what a check answers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import disable_value_validation


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong with one file."""

    check: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"[{self.check}] {self.file}: {self.text}"


@dataclass
class Case:
    """Results of one study beside the images that they were made from."""

    produced: dict[Path, Any]
    sources: dict[Path, Any]
    by_uid: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.by_uid = {str(ds.SOPInstanceUID): ds for ds in (*self.sources.values(), *self.produced.values())}

    @classmethod
    def read(cls, produced: Sequence[Path], sources: Sequence[Path]) -> Case:
        with disable_value_validation():
            return cls(
                {path: pydicom.dcmread(path) for path in produced},
                {path: pydicom.dcmread(path, stop_before_pixels=False) for path in sources},
            )

    @property
    def source_uids(self) -> set[str]:
        return {str(ds.SOPInstanceUID) for ds in self.sources.values()}

    @property
    def source_series(self) -> set[str]:
        return {str(ds.SeriesInstanceUID) for ds in self.sources.values()}

    def of_modality(self, modality: str) -> Iterator[tuple[Path, Any]]:
        return ((path, ds) for path, ds in self.produced.items() if ds.get("Modality") == modality)

    def derived(self) -> Iterator[tuple[Path, Any]]:
        """Images made of an image: they have its class, or are CT images of its frames."""
        return (
            (path, ds)
            for path, ds in self.produced.items()
            if "PixelData" in ds and ds.get("Modality") in ("CT", "CR", "DX")
        )


def items(ds: Any) -> Iterator[Any]:
    """All content items of a report, root first."""
    yield ds
    for child in ds.get("ContentSequence") or []:
        yield from items(child)


def groups(ds: Any) -> Iterator[Any]:
    """Measurement groups of a report."""
    return (item for item in items(ds) if item.get("ValueType") == "CONTAINER" and name(item) == "Measurement Group")


def name(item: Any) -> str:
    """What a content item is called."""
    names = item.get("ConceptNameCodeSequence") or []
    return str(names[0].CodeMeaning) if names else ""


def run(*command: str | Path) -> tuple[int, str]:
    """Exit status and all that was said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=120, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf8", errors="replace")
