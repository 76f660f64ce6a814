"""What a peer is and has: C-ECHO with a look at what it accepts, and C-FIND.

source  PS3.4 Annex A and C
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.dicom import messages, status
from node.dicom.association import Association, associate
from node.dicom.messages import decode_data_set, encode_data_set
from node.dicom.negotiation import STORAGE_COMMITMENT, STUDY_ROOT_FIND, VERIFICATION, Accepted
from node.dicom.streaming import Malformed
from node.errors import NoCommonContext
from node.settings import Peer, Settings

RESULT_CLASSES: Mapping[str, str] = {
    "Comprehensive 3D SR": str(Comprehensive3DSRStorage),
    "Comprehensive SR": str(ComprehensiveSRStorage),
    "Enhanced SR": str(EnhancedSRStorage),
    "SEG": str(SegmentationStorage),
    "SC": str(SecondaryCaptureImageStorage),
    "CT": str(CTImageStorage),
    "CR": str(ComputedRadiographyImageStorage),
    "DX": str(DigitalXRayImageStorageForPresentation),
    "GSPS": str(GrayscaleSoftcopyPresentationStateStorage),
}
"""Classes of what we return, by the names that an administrator knows."""
_SYNTAXES = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
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
    with associate(settings, peer, [(uid, _SYNTAXES) for uid in offered]) as association:
        context = association.context(VERIFICATION)
        return EchoReport(
            round_trip_s=None if context is None else _echo(association, context, peer),
            stores=tuple(name for name, uid in RESULT_CLASSES.items() if association.context(uid)),
            commitment=association.context(STORAGE_COMMITMENT) is not None,
            find=association.context(STUDY_ROOT_FIND) is not None,
        )


def find_instances(
    settings: Settings, peer: Peer, study_instance_uid: str, series_instance_uids: Sequence[str]
) -> set[str]:
    """SOP Instance UIDs that the peer has of these series (C-FIND, study root, IMAGE level).

    raises  NoCommonContext where the peer does not offer it; Transient, Permanent
    source  PS3.4 C.4.1, C.6.2
    """
    found: set[str] = set()
    with associate(settings, peer, [(STUDY_ROOT_FIND, _SYNTAXES)]) as association:
        context = association.context(STUDY_ROOT_FIND)
        if context is None:
            raise NoCommonContext(f"{peer.aet} does not offer C-FIND by study root")
        for series_instance_uid in series_instance_uids:
            keys = Dataset()
            keys.QueryRetrieveLevel = "IMAGE"
            keys.StudyInstanceUID = study_instance_uid
            keys.SeriesInstanceUID = series_instance_uid
            keys.SOPInstanceUID = ""
            found.update(str(match.get("SOPInstanceUID") or "") for match in _find(association, context, peer, keys))
    return found - {""}


def _echo(association: Association, context: Accepted, peer: Peer) -> float:
    elements = {
        messages.AFFECTED_CLASS: messages.uid(VERIFICATION),
        messages.COMMAND_FIELD: messages.short(messages.C_ECHO_RQ),
    }
    began = time.perf_counter()
    answer = association.response(association.request(context, elements))
    error = status.peer_error(answer.command.need(messages.STATUS), f"{peer.aet}: C-ECHO")
    if error is not None:
        raise error
    return time.perf_counter() - began


def _find(association: Association, context: Accepted, peer: Peer, keys: Dataset) -> Iterator[Dataset]:
    elements = {
        messages.AFFECTED_CLASS: messages.uid(STUDY_ROOT_FIND),
        messages.COMMAND_FIELD: messages.short(messages.C_FIND_RQ),
        messages.PRIORITY: messages.short(0),
    }
    message_id = association.request(context, elements, encode_data_set(keys, context.transfer_syntax))
    for _ in range(_MOST_MATCHES):
        answer = association.response(message_id)
        code = answer.command.need(messages.STATUS)
        if code not in status.PENDING:
            error = status.peer_error(code, f"{peer.aet}: C-FIND")
            if error is not None:
                raise error
            return
        yield decode_data_set(answer.data, context.transfer_syntax)
    raise Malformed("matches without end")
