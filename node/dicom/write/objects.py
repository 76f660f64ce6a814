"""What goes into a result and what comes out: plain frozen types, no DICOM in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.contract import Findings, SourceRef


@dataclass(frozen=True)
class ResultRef:
    """An object that is written already, as a report names it."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    label: str = ""


@dataclass(frozen=True)
class Stamp:
    """All that makes bytes and is not in the findings, given from outside: the same stamp makes the same bytes.

    made_at         aware, in the time zone of the site; fixed per revision, never now()
    replaces        the earlier revision that this one supersedes
    new_images      late images that came with this revision
    predecessors    reports of that earlier revision, where they were written
    """

    study_instance_uid: str
    revision: int
    replaces: int | None
    made_at: datetime
    station_name: str
    aet: str
    note: str
    series_number_base: int
    new_images: int = 0
    predecessors: tuple[ResultRef, ...] = ()


@dataclass(frozen=True)
class Produced:
    """One DICOM object, ready to be kept and sent.

    kind            "sr", "sr-text", "seg", "gsps", "sc", "derived"
    data            the whole Part 10 file
    label           for people: "AI denoised 3/102"
    group           results of one group are alternatives: the lowest `fallback` that the peer takes is sent
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    data: bytes
    label: str
    group: str
    fallback: int = 0

    @property
    def ref(self) -> ResultRef:
        return ResultRef(self.kind, self.sop_class_uid, self.sop_instance_uid, self.series_instance_uid, self.label)


@dataclass(frozen=True)
class SeriesEntry:
    """One line of the report per series that arrived.

    outcome             "withheld": its analysis is not in service, and the reader is told no more than that
    findings            arrays may be empty: only scalars, lesion axes and slice indices are read
    volume_sources      the slices of the processed volume in its order (of a radiograph the one image): turns a slice
                        index into an image
    results             objects already written for this series
    image               which image this is about, of a series whose images are told one by one: "image 2 at 09:15:31"
    """

    series_instance_uid: str
    number: int | None
    description: str
    modality: str
    images: int
    role: str
    outcome: Literal["processed", "not eligible", "failed", "withheld"]
    reason: str
    findings: Findings | None = None
    volume_sources: tuple[SourceRef, ...] = ()
    results: tuple[ResultRef, ...] = ()
    image: str = ""


@dataclass(frozen=True)
class StudyEntry:
    """All that arrived of one study, in the order in which the report names it.

    missing             what the report does without, since it is no longer held: said first, and the report is partial
    """

    series: tuple[SeriesEntry, ...]
    notes: tuple[str, ...] = ()
    missing: str = ""
