"""Where the files of one study come from: a folder here, a peer elsewhere (node/dicom/retrieve.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from node.dicom.folder import scan
from node.dicom.marks.masks import SEGMENTATIONS
from node.dicom.retrieve import Destination, find_series, get_series, move_series
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

DOCUMENT_MODALITIES = ("PR", "SR")

_CT = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_COMPRESSED = (
    *("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"),  # deflated, RLE
    *("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),  # JPEG lossless
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"),
)
"""The last line is lossy: taken, so that the refusal can say why."""
_DOCUMENTS = tuple((uid, _UNCOMPRESSED) for uid in (*PRESENTATION_STATES, *REPORTS))
_IMAGES = (*((uid, (*_UNCOMPRESSED, *_COMPRESSED)) for uid in _CT), *((uid, _UNCOMPRESSED) for uid in SEGMENTATIONS))


class Shelf(Protocol):
    """Files of one study; `failed` counts objects that a peer could not send."""

    failed: int

    @property
    def study_uid(self) -> str: ...

    def documents(self) -> Sequence[Path]:
        """Presentation states and reports."""

    def series_of(self, instance_uid: str) -> str:
        """Which series an instance is of; "" where that is not known before it is asked for."""

    def series(self, series_uid: str) -> Sequence[Path]:
        """All instances of a series that are there; raises Transient, Permanent where a peer is to be asked."""


@dataclass(eq=False)
class FolderShelf:
    """One study of a folder."""

    study_uid: str
    paths: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    marked: list[Path] = field(default_factory=list)
    series_by_instance: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    def documents(self) -> Sequence[Path]:
        return self.marked

    def series_of(self, instance_uid: str) -> str:
        return self.series_by_instance.get(instance_uid, "")

    def series(self, series_uid: str) -> Sequence[Path]:
        return self.paths.get(series_uid, [])


def shelves(folder: Path) -> Iterator[FolderShelf]:
    """The studies of a folder that hold presentation states or reports, by UID."""
    found: dict[str, FolderShelf] = {}
    for each in scan(folder):
        if each.outgoing is None or not each.study_instance_uid:
            continue
        shelf = found.setdefault(each.study_instance_uid, FolderShelf(each.study_instance_uid))
        if each.outgoing.sop_instance_uid in shelf.series_by_instance:
            continue  # the same object twice in the folder
        shelf.series_by_instance[each.outgoing.sop_instance_uid] = each.series_instance_uid
        shelf.paths[each.series_instance_uid].append(each.path)
        if each.outgoing.sop_class_uid in (*PRESENTATION_STATES, *REPORTS):
            shelf.marked.append(each.path)
    return (found[uid] for uid in sorted(found) if found[uid].marked)


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

    def documents(self) -> Sequence[Path]:
        found = find_series(self.settings, self.peer, self.study_uid)
        wanted = [series.series_instance_uid for series in found if series.modality in DOCUMENT_MODALITIES]
        return [path for uid in wanted for path in self._get(uid, _DOCUMENTS)]

    def series_of(self, instance_uid: str) -> str:  # noqa: ARG002  (the documents say; asking the peer would not be quicker)
        return ""

    def series(self, series_uid: str) -> Sequence[Path]:
        return self._get(series_uid, _IMAGES)

    def _get(self, uid: str, contexts: Sequence[tuple[str, Sequence[str]]]) -> tuple[Path, ...]:
        if uid not in self._fetched:
            target = self.folder / str(len(self._fetched))
            fetch = get_series if self.move_to is None else partial(move_series, to=self.move_to)
            fetched = fetch(
                self.settings, self.peer, self.study_uid, [uid], target, contexts=contexts, on_object=self.on_object
            )
            self.failed += fetched.failed
            self._fetched[uid] = fetched.paths
        return self._fetched[uid]
