"""Series, or some of their objects, from a peer: C-GET over the same association that asks, or C-MOVE.

C-GET where the peer offers it: it needs no entry of ours in the peer's list of destinations, and no second listener.
For C-MOVE we listen as long as it lasts, and take nothing but objects of the series that was asked for.

source  PS3.4 C.4.2 (C-MOVE), C.4.3 (C-GET), PS3.7 D.3.3.4 (role selection)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from node.dicom import status
from node.dicom.association import Broken, associate
from node.dicom.elements import valid_uid
from node.dicom.header import read_header
from node.dicom.negotiation import STUDY_ROOT_GET, STUDY_ROOT_MOVE, UNCOMPRESSED, VERIFICATION
from node.dicom.tls import server_context
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import (
    ConfigurationError,
    NoCommonContext,
    NotUnderstood,
    PeerRefused,
    Permanent,
    Transient,
)
from node.settings import Peer, Settings

PATIENCE_S = 600.0
"""A peer need not tell how far a retrieval has come, and may fetch the series from tape first."""
_LATE_S = 3.0
"""Some peers answer C-MOVE when the work is queued: how long after the last object the next may come."""
_LOOK_S = 0.05

OnObject = Callable[[int], None]
"""Called with the number of objects that have come."""


@dataclass(frozen=True)
class Fetched:
    """Files that came, and how many objects the peer could not send, or says it sent and did not."""

    paths: tuple[Path, ...]
    failed: int


@dataclass(frozen=True)
class Destination:
    """Ourselves, as the peer knows us: where it is to send what C-MOVE asks for."""

    aet: str
    port: int


def get_series(
    settings: Settings,
    peer: Peer,
    study_instance_uid: str,
    series_instance_uid: str,
    folder: Path,
    *,
    contexts: Sequence[tuple[str, Sequence[str]]],
    only: Sequence[str] = (),
    on_object: OnObject | None = None,
) -> Fetched:
    """All objects of a series as files in `folder`, each in the transfer syntax that it came in.

    contexts   (storage class, transfer syntaxes) that are taken; each syntax is offered by itself, so that the peer
               need not convert
    only       SOP Instance UIDs; () for all of the series
    raises     NoCommonContext where the peer offers no C-GET; Transient, Permanent; ConfigurationError where our own
               disk does not do its work
    """
    intake = _Intake(folder, on_object, (study_instance_uid, series_instance_uid))
    offered = [(uid, (syntax,)) for uid, syntaxes in contexts for syntax in syntaxes]
    roles = [uid for uid, _ in contexts]
    with (
        intake.telling(),
        associate(
            settings,
            peer,
            [(STUDY_ROOT_GET, UNCOMPRESSED), *offered],
            handlers=[(evt.EVT_C_STORE, intake.take)],
            stores_here=roles,
        ) as association,
    ):
        if not any(context.abstract_syntax == STUDY_ROOT_GET for context in association.accepted_contexts):
            raise NoCommonContext(f"{peer.aet} does not offer C-GET by study root; C-MOVE is the other way")
        association.dimse_timeout = max(settings.dimse_timeout_s, PATIENCE_S)
        keys = _series(study_instance_uid, series_instance_uid, only)
        ended = _ended(association.send_c_get(keys, STUDY_ROOT_GET), peer, "C-GET")
    return intake.fetched(ended)


def move_series(
    settings: Settings,
    peer: Peer,
    study_instance_uid: str,
    series_instance_uid: str,
    folder: Path,
    *,
    contexts: Sequence[tuple[str, Sequence[str]]],
    to: Destination,
    only: Sequence[str] = (),
    on_object: OnObject | None = None,
) -> Fetched:
    """As `get_series`, by C-MOVE to `to`, where we listen meanwhile.

    raises     NoCommonContext where the peer offers no C-MOVE; PeerRefused where it does not know `to`, or sends what
               it says it sent elsewhere; Transient, Permanent; ConfigurationError where we cannot listen or write
    """
    intake = _Intake(folder, on_object, (study_instance_uid, series_instance_uid))
    with (
        intake.telling(),
        _listening(settings, peer, to, contexts, intake),
        associate(settings, peer, [(STUDY_ROOT_MOVE, UNCOMPRESSED)]) as association,
    ):
        association.dimse_timeout = max(settings.dimse_timeout_s, PATIENCE_S)
        keys = _series(study_instance_uid, series_instance_uid, only)
        ended = _ended(association.send_c_move(keys, to.aet, STUDY_ROOT_MOVE), peer, "C-MOVE", to)
        intake.wait_for(ended.sent)
    if ended.sent and not intake.paths:
        raise PeerRefused(
            f"{peer.aet}: C-MOVE sent {ended.sent} objects and none came;"
            f" does it know {to.aet} at this host and port {to.port}?"
        )
    return intake.fetched(ended)


@contextmanager
def _listening(
    settings: Settings, peer: Peer, to: Destination, contexts: Sequence[tuple[str, Sequence[str]]], intake: _Intake
) -> Iterator[None]:
    entity = AE(to.aet)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.require_called_aet = True
    entity.acse_timeout = settings.association_timeout_s
    entity.dimse_timeout = entity.network_timeout = settings.dimse_timeout_s
    entity.maximum_pdu_size = settings.max_pdu
    entity.add_supported_context(VERIFICATION, list(UNCOMPRESSED))  # PS3.2 7.1: of whoever accepts associations
    for uid, syntaxes in contexts:
        entity.add_supported_context(uid, list(syntaxes))
    secured = server_context(settings) if peer.tls else None
    try:
        server = entity.start_server(
            (settings.host, to.port), block=False, ssl_context=secured, evt_handlers=[(evt.EVT_C_STORE, intake.take)]
        )
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {settings.host} port {to.port}: {exc.strerror}") from exc
    try:
        yield
    finally:
        entity.shutdown()
        server.server_close()


class _Intake:
    """Writes what the peer stores with us. A full disk is ours to tell, so the error is kept for the caller."""

    def __init__(self, folder: Path, on_object: OnObject | None, of: tuple[str, str]) -> None:
        """of   study and series that are taken, and nothing else, whoever sends it"""
        self.paths: dict[Path, None] = {}
        self._came = 0
        self._trouble: OSError | None = None
        self._folder = folder
        self._on_object = on_object
        self._of = of
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """raises ConfigurationError where our own disk does not do its work: then the peer only repeats what we said"""
        try:
            yield
        except (Transient, Permanent):
            if self._trouble is None:
                raise
        if self._trouble is not None:
            raise ConfigurationError(f"{self._folder}: cannot be written ({self._trouble.strerror})") from self._trouble

    def wait_for(self, objects: int) -> None:
        """Until so many were sent, taken or not, or nothing has come for a while."""
        last, seen = time.monotonic(), self._came
        while self._came < objects and time.monotonic() - last < _LATE_S:
            time.sleep(_LOOK_S)
            if self._came > seen:
                last, seen = time.monotonic(), self._came

    def take(self, event: Any) -> int:
        try:
            return self._take(event)
        finally:
            self._came += 1

    def _take(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not valid_uid(uid):
            return status.CANNOT_UNDERSTAND
        path = self._folder / f"{uid}.dcm"
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(event.encoded_dataset())
            if not self._is_wanted(path):
                path.unlink()
                return status.CLASS_MISMATCH
        except OSError as exc:
            self._trouble = exc
            return status.OUT_OF_RESOURCES
        self.paths[path] = None  # once, though a peer may send it twice
        if self._on_object is not None:
            self._on_object(len(self.paths))
        return status.SUCCESS

    def fetched(self, ended: _Ended) -> Fetched:
        return Fetched(tuple(self.paths), ended.failed + max(0, ended.sent - len(self.paths)))

    def _is_wanted(self, path: Path) -> bool:
        try:
            header = read_header(path)
        except NotUnderstood:
            return False
        return (header.study_instance_uid, header.series_instance_uid) == self._of


@dataclass(frozen=True)
class _Ended:
    """Sub-operations of one retrieval, as the peer counts them."""

    sent: int
    failed: int


def _series(study_instance_uid: str, series_instance_uid: str, only: Sequence[str] = ()) -> Dataset:
    """Keys of a series, or of some of its objects."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE" if only else "SERIES"
    keys.StudyInstanceUID = study_instance_uid
    keys.SeriesInstanceUID = series_instance_uid
    if only:
        keys.SOPInstanceUID = list(only)
    return keys


def _ended(answers: Any, peer: Peer, service: str, to: Destination | None = None) -> _Ended:
    """The last answer of a C-GET or C-MOVE."""
    for answer, _ in answers:
        if "Status" not in answer:
            raise Broken(f"no answer to {service}")
        code = int(answer.Status)
        if code in status.PENDING:
            continue
        if to is not None and code == status.MOVE_DESTINATION_UNKNOWN:
            raise PeerRefused(f"{peer.aet} does not know {to.aet} as a destination of C-MOVE")
        error = status.peer_error(code, f"{peer.aet}: {service}")
        if error is not None:
            raise error
        return _Ended(
            int(answer.get("NumberOfCompletedSuboperations") or 0)
            + int(answer.get("NumberOfWarningSuboperations") or 0),
            int(answer.get("NumberOfFailedSuboperations") or 0),
        )
    raise Broken(f"no final answer to {service}")
