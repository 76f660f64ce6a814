"""Where the files of one study come from: a folder here, a peer elsewhere (node/dicom/retrieve.py)."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Protocol

from node.dicom.folder import scan
from node.dicom.holdings import FoundSeries, find_objects, find_series
from node.dicom.marks.masks import SEGMENTATIONS
from node.dicom.marks.rejections import KEY_OBJECTS
from node.dicom.marks.structures import STRUCTURE_SETS
from node.dicom.negotiation import UNCOMPRESSED
from node.dicom.retrieve import Destination, get_series, move_series
from node.errors import NotEligible, PeerRefused
from node.settings import Peer, Settings

PRESENTATION_STATES = (
    "1.2.840.10008.5.1.4.1.1.11.1",  # greyscale
    "1.2.840.10008.5.1.4.1.1.11.2",  # colour
)
REPORTS = (
    "1.2.840.10008.5.1.4.1.1.88.11",  # basic text
    "1.2.840.10008.5.1.4.1.1.88.22",  # enhanced
    "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive
    "1.2.840.10008.5.1.4.1.1.88.34",  # comprehensive 3D
    "1.2.840.10008.5.1.4.1.1.88.35",  # extensible
)

MARKED_MODALITIES = ("PR", "SR", "SEG", "RTSTRUCT")
"""Of documents that may hold marks."""
_REJECTIONS = "KO"
_DOCUMENT_MODALITIES = (*MARKED_MODALITIES, _REJECTIONS)
_WITHOUT_PIXELS = ("PR", "SR", "RTSTRUCT", "KO")
_CT_MODALITY = "CT"

_CT = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_COMPRESSED = (
    *("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"),  # deflated, RLE
    *("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),  # JPEG lossless
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"),
)
"""The last line is lossy: taken, so that the refusal can say why."""
_DOCUMENT_CLASSES = (*PRESENTATION_STATES, *REPORTS, STRUCTURE_SETS, KEY_OBJECTS, *SEGMENTATIONS)
_MASKS = tuple((uid, (*UNCOMPRESSED, *_COMPRESSED)) for uid in SEGMENTATIONS)
DOCUMENTS = (*((uid, UNCOMPRESSED) for uid in _DOCUMENT_CLASSES if uid not in SEGMENTATIONS), *_MASKS)
IMAGES = (*((uid, (*UNCOMPRESSED, *_COMPRESSED)) for uid in _CT), *_MASKS)


class Shelf(Protocol):
    """Files of one study; `failed` counts objects that a peer could not send."""

    failed: int

    @property
    def study_uid(self) -> str: ...

    def holdings(self) -> frozenset[str]:
        """What marks depend on, without a file being fetched: documents by their UIDs, series of images by their
        number. Where it is as it was, nothing new can come of the study.

        raises   Transient, Permanent where a peer is to be asked
        """

    def documents(self) -> Sequence[Path]:
        """Presentation states, reports, segmentations, structure sets and key object notes."""

    def series_of(self, instance_uid: str, said: str) -> str:
        """Which series an instance is of; "" where there is none. `said` is what documents say, "" where they do not.

        raises   Transient, Permanent where a peer is to be asked
        """

    def series(self, series_uid: str, *, without: Collection[str] = ()) -> Sequence[Path]:
        """All instances of a series that are there: CT images and segmentations.

        without  SOP Instance UIDs that need not be among them
        raises   NotEligible where it holds others alone; Transient, Permanent where a peer is to be asked
        """


@dataclass(eq=False)
class FolderShelf:
    """One study of a folder; `marked` are its documents by SOP Instance UID."""

    study_uid: str
    paths: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    marked: dict[str, Path] = field(default_factory=dict)
    series_by_instance: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    def holdings(self) -> frozenset[str]:
        documents = set(self.marked.values())
        counts = (f"{uid} {len(paths)}" for uid, paths in self.paths.items() if not set(paths) <= documents)
        return frozenset((*self.marked, *counts))

    def documents(self) -> Sequence[Path]:
        return list(self.marked.values())

    def series_of(self, instance_uid: str, said: str) -> str:  # noqa: ARG002  (the files themselves say)
        return self.series_by_instance.get(instance_uid, "")

    def series(self, series_uid: str, *, without: Collection[str] = ()) -> Sequence[Path]:  # noqa: ARG002
        return self.paths.get(series_uid, [])


def shelves(folder: Path, on_left_out: Callable[[str], None] | None = None) -> list[FolderShelf]:
    """The studies of a folder that hold documents, by UID.

    on_left_out   called with the reason for each file that is no object of a study, or not the first of its UID
    """
    left_out = on_left_out or (lambda _: None)
    found: dict[str, FolderShelf] = {}
    first: dict[str, Path] = {}
    for each in scan(folder):
        if each.outgoing is None or not each.study_instance_uid:
            left_out(each.reason or "of no study")
            continue
        uid = each.outgoing.sop_instance_uid
        if first.setdefault(uid, each.path) != each.path:
            if not filecmp.cmp(first[uid], each.path, shallow=False):
                left_out("other content under the SOP Instance UID of an earlier file")
            continue
        shelf = found.setdefault(each.study_instance_uid, FolderShelf(each.study_instance_uid))
        shelf.series_by_instance[uid] = each.series_instance_uid
        shelf.paths[each.series_instance_uid].append(each.path)
        if each.outgoing.sop_class_uid in _DOCUMENT_CLASSES:
            shelf.marked[uid] = each.path
    return [found[uid] for uid in sorted(found) if found[uid].marked]


@dataclass(eq=False)
class PeerShelf:
    """One study of a peer; what is asked for is fetched into `folder`, each series once.

    move_to   by C-MOVE to this destination, that is us; None: by C-GET
    """

    settings: Settings
    peer: Peer
    study_uid: str
    folder: Path
    on_object: Callable[[int], None] | None = None
    move_to: Destination | None = None
    failed: int = 0
    _fetched: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    _listed: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def _series(self) -> dict[str, FoundSeries]:
        asked = (*_DOCUMENT_MODALITIES, _CT_MODALITY)
        found = find_series(self.settings, self.peer, self.study_uid, in_parts=asked)
        return {series.series_instance_uid: series for series in found}

    def _of(self, *modalities: str) -> list[str]:
        return [uid for uid, series in self._series.items() if series.modality in modalities]

    def holdings(self) -> frozenset[str]:
        documents = (self._objects(uid) or (self._counted(uid),) for uid in self._of(*_DOCUMENT_MODALITIES))
        return frozenset((*chain.from_iterable(documents), *map(self._counted, self._of(_CT_MODALITY))))

    def _counted(self, uid: str) -> str:
        return f"{uid} {self._series[uid].objects}"

    def documents(self) -> Sequence[Path]:
        """raises also where all of them, or notes that may reject others, are refused"""
        found: list[Path] = []
        refused: PeerRefused | None = None
        for uid in self._of(*_DOCUMENT_MODALITIES):
            try:
                found += self._get(uid, DOCUMENTS)
            except PeerRefused as exc:
                if self._series[uid].modality == _REJECTIONS:
                    raise
                refused = exc
        if refused is not None and not found:
            raise refused
        return found

    def series_of(self, instance_uid: str, said: str) -> str:
        if said in self._series:
            return said
        marked = [uid for uid, series in self._series.items() if series.modality not in _WITHOUT_PIXELS]
        return next((uid for uid in marked if instance_uid in self._objects(uid)), "")

    def series(self, series_uid: str, *, without: Collection[str] = ()) -> Sequence[Path]:
        if series_uid not in self._series:
            return ()
        kinds = set(self._objects(series_uid).values())
        if kinds and kinds.isdisjoint({"", *(uid for uid, _ in IMAGES)}):
            raise NotEligible("It holds no CT image and no segmentation.")
        return self._get(series_uid, IMAGES, without)

    def _objects(self, uid: str) -> dict[str, str]:
        """SOP Instance UID → class of a series; empty where the peer does not answer about single objects."""
        if uid not in self._listed:
            try:
                self._listed[uid] = find_objects(self.settings, self.peer, self.study_uid, uid)
            except PeerRefused:
                self._listed[uid] = {}
        return self._listed[uid]

    def _get(
        self, uid: str, contexts: Sequence[tuple[str, Sequence[str]]], without: Collection[str] = ()
    ) -> tuple[Path, ...]:
        """What there is of these classes. Others stay where they are: of dose reports a peer may make an error of the
        whole series, and what is rejected it may list and not send."""
        if uid not in self._fetched:
            there, taken = self._objects(uid), {"", *(kind for kind, _ in contexts)}
            wanted = {instance for instance, kind in there.items() if kind in taken and instance not in without}
            only = () if len(wanted) == len(there) else sorted(wanted)
            self._fetched[uid] = self._fetch(uid, contexts, only, len(wanted)) if wanted or not there else ()
        return self._fetched[uid]

    def _fetch(
        self, uid: str, contexts: Sequence[tuple[str, Sequence[str]]], only: Sequence[str], expected: int
    ) -> tuple[Path, ...]:
        """expected   objects; 0 where the peer does not say how many there are"""
        target = self.folder / str(len(self._fetched))
        fetch = get_series if self.move_to is None else partial(move_series, to=self.move_to)
        try:
            fetched = fetch(
                self.settings,
                self.peer,
                self.study_uid,
                uid,
                target,
                contexts=contexts,
                only=only,
                on_object=self.on_object,
            )
        except PeerRefused:
            self.failed += max(1, expected)
            raise
        self.failed += max(0, expected - len(fetched.paths)) if expected else fetched.failed
        return fetched.paths
