"""What a peer is and has: C-ECHO with a look at what it accepts, and C-FIND.

source  PS3.4 Annex A and C
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.dicom import status
from node.dicom.association import Broken, associate
from node.dicom.elements import text, valid_uid
from node.dicom.fragments import Malformed
from node.dicom.negotiation import STORAGE_COMMITMENT, STUDY_ROOT_FIND, UNCOMPRESSED, VERIFICATION
from node.errors import NoCommonContext
from node.settings import Peer, Settings

RESULT_CLASSES: Mapping[str, str] = {
    "Comprehensive 3D SR": str(Comprehensive3DSRStorage),
    "Comprehensive SR": str(ComprehensiveSRStorage),
    "Basic Text SR": str(BasicTextSRStorage),
    "SEG": str(SegmentationStorage),
    "SC": str(SecondaryCaptureImageStorage),
    "CT": str(CTImageStorage),
    "CR": str(ComputedRadiographyImageStorage),
    "DX": str(DigitalXRayImageStorageForPresentation),
    "DX for processing": str(DigitalXRayImageStorageForProcessing),
    "GSPS": str(GrayscaleSoftcopyPresentationStateStorage),
}
"""Classes of what we return, by the names that an administrator knows."""
CLASSES_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "sr": ("Comprehensive 3D SR", "Comprehensive SR"),
    "sr-text": ("Basic Text SR",),
    "seg": ("SEG",),
    "gsps": ("GSPS",),
    "sc": ("SC",),
    "derived": ("CT", "CR", "DX", "DX for processing"),
}
"""Of each kind of result, as a peer's `takes` names them; of a report the first that the peer stores."""
_MOST_MATCHES = 1_000_000


@dataclass(frozen=True)
class EchoReport:
    """What one association with a peer showed.

    round_trip_s   of the C-ECHO alone; None where the peer does not take C-ECHO
    stores         names of RESULT_CLASSES that it takes
    """

    round_trip_s: float | None
    stores: tuple[str, ...]
    commitment: bool
    find: bool


def echo(settings: Settings, peer: Peer) -> EchoReport:
    """Raises PeerUnreachable, PeerBusy, PeerRefused: in words that tell a refused AE title from silence."""
    offered = [VERIFICATION, *RESULT_CLASSES.values(), STORAGE_COMMITMENT, STUDY_ROOT_FIND]
    try:
        with associate(settings, peer, [(uid, UNCOMPRESSED) for uid in offered]) as association:
            taken = {str(context.abstract_syntax) for context in association.accepted_contexts if context.as_scu}
            return EchoReport(
                round_trip_s=_echo(association, peer) if VERIFICATION in taken else None,
                stores=tuple(name for name, uid in RESULT_CLASSES.items() if uid in taken),
                commitment=STORAGE_COMMITMENT in taken,
                find=STUDY_ROOT_FIND in taken,
            )
    except NoCommonContext:
        return EchoReport(None, (), commitment=False, find=False)


def find_instances(
    settings: Settings, peer: Peer, study_instance_uid: str, series_instance_uids: Sequence[str]
) -> set[str]:
    """SOP Instance UIDs that the peer has of these series (C-FIND, study root, IMAGE level).

    raises  NoCommonContext where the peer does not offer it; Transient, Permanent
    source  PS3.4 C.4.1, C.6.2
    """
    with finding(settings, peer) as association:
        return {
            sop_instance_uid
            for series_instance_uid in series_instance_uids
            for sop_instance_uid in objects_of(association, peer, study_instance_uid, series_instance_uid)
        }


@contextmanager
def finding(settings: Settings, peer: Peer, *, patience_s: float = 0.0) -> Iterator[Any]:
    """An association for C-FIND that waits for each answer as long as any other does, and at least `patience_s`.

    raises  NoCommonContext where the peer does not offer it; Transient, Permanent
    """
    try:
        with associate(settings, peer, [(STUDY_ROOT_FIND, UNCOMPRESSED)]) as association:
            association.dimse_timeout = max(settings.dimse_timeout_s, patience_s)
            yield association
    except NoCommonContext as exc:
        raise NoCommonContext(f"{peer.aet} does not offer C-FIND by study root") from exc


def objects_of(
    association: Any, peer: Peer, study_instance_uid: str, series_instance_uid: str, *, with_class: bool = False
) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of a series' objects; "" where it is not asked for, or the peer does not tell.

    raises  as `find`
    """
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = study_instance_uid
    keys.SeriesInstanceUID = series_instance_uid
    keys.SOPInstanceUID = ""
    if with_class:
        keys.SOPClassUID = ""
    found = {text(match, 0x00080018): text(match, 0x00080016) for match in find(association, peer, keys)}
    return {sop_instance_uid: kind for sop_instance_uid, kind in found.items() if valid_uid(sop_instance_uid)}


def _echo(association: Any, peer: Peer) -> float:
    began = time.perf_counter()
    answer = association.send_c_echo()
    seconds = time.perf_counter() - began
    if "Status" not in answer:
        raise Broken("no answer to C-ECHO")
    error = status.peer_error(int(answer.Status), f"{peer.aet}: C-ECHO")
    if error is not None:
        raise error
    return seconds


def find(association: Any, peer: Peer, keys: Dataset) -> Iterator[Dataset]:
    """Matches of one C-FIND by study root. raises Broken, Malformed within `associate`; Transient, Permanent"""
    for count, (answer, match) in enumerate(association.send_c_find(keys, STUDY_ROOT_FIND)):
        if "Status" not in answer:
            raise Broken("no answer to C-FIND")
        code = int(answer.Status)
        if code not in status.PENDING:
            error = status.peer_error(code, f"{peer.aet}: C-FIND")
            if error is not None:
                raise error
            return
        if match is None:
            raise Malformed("a match that cannot be decoded")
        if count >= _MOST_MATCHES:
            raise Malformed("matches without end")
        yield match
