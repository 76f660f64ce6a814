"""C-ECHO and C-FIND with other makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, STUDY, ct_image, write
from network.pacs import pynetdicom_scp
from network.raw import VERIFICATION
from node.dicom.query import RESULT_CLASSES, echo, find_instances
from node.dicom.receive import StorageScp
from node.dicom.send import Outgoing, send
from node.errors import NoCommonContext, PeerBusy, PeerRefused, UnknownCaller
from node.settings import Peer, Settings
from system.orthanc import Orthanc, Remote

SETTINGS = Settings(aet="NODE", dimse_timeout_s=10)
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def test_an_echo_tells_what_a_peer_takes() -> None:
    contexts = [(VERIFICATION, [EXPLICIT]), (RESULT_CLASSES["SEG"], [EXPLICIT]), (FIND, [EXPLICIT])]
    with pynetdicom_scp(contexts, []) as peer:
        report = echo(SETTINGS, peer)
    assert report.round_trip_s is not None
    assert report.round_trip_s > 0
    assert (report.stores, report.commitment, report.find) == (("SEG",), False, True)


def test_a_peer_without_verification_still_tells_what_it_takes() -> None:
    with pynetdicom_scp([(CT, [EXPLICIT])], []) as peer:
        report = echo(SETTINGS, peer)
    assert (report.round_trip_s, report.stores) == (None, ("CT",))


def test_our_own_receiver_takes_every_result_class(scp: StorageScp) -> None:
    report = echo(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port))
    assert report.stores == tuple(RESULT_CLASSES)
    assert (report.commitment, report.find) == (True, False)


def test_a_failed_echo_is_an_error() -> None:
    with (
        pynetdicom_scp([(VERIFICATION, [EXPLICIT])], [(evt.EVT_C_ECHO, lambda event: 0x0122)]) as peer,
        pytest.raises(PeerRefused, match="C-ECHO"),
    ):
        echo(SETTINGS, peer)


def test_a_refused_title_is_told(scp: StorageScp, desk: RecordingDesk) -> None:
    def refuse(_: object) -> None:
        raise UnknownCaller("nobody")

    desk.on_admit = refuse
    with pytest.raises(PeerRefused, match="calling AE title not recognised"):
        echo(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port))


def answers(found: dict[str, list[str]], last: int = 0x0000) -> Callable[[Any], Iterator[tuple[int, Dataset | None]]]:
    def on_find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        keys = event.identifier
        assert keys.QueryRetrieveLevel == "IMAGE"
        assert keys.StudyInstanceUID == STUDY
        for uid in found.get(keys.SeriesInstanceUID, []):
            match = Dataset()
            match.SOPInstanceUID = uid
            yield 0xFF00, match
        yield last, None

    return on_find


def test_finds_the_instances_of_several_series() -> None:
    there = {"1.1": ["1.1.1", "1.1.2"], "1.2": ["1.2.1"], "1.3": ["1.3.1"]}
    with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, answers(there))]) as peer:
        assert find_instances(SETTINGS, peer, STUDY, ["1.1", "1.2", "1.9"]) == {"1.1.1", "1.1.2", "1.2.1"}


@pytest.mark.parametrize(("status", "kind"), [(0xA700, PeerBusy), (0xA900, PeerRefused), (0xC001, PeerRefused)])
def test_a_failed_query_is_no_empty_answer(status: int, kind: type[Exception]) -> None:
    handlers = [(evt.EVT_C_FIND, answers({"1.1": ["1.1.1"]}, last=status))]
    with pynetdicom_scp([(FIND, [EXPLICIT])], handlers) as peer, pytest.raises(kind, match="C-FIND"):
        find_instances(SETTINGS, peer, STUDY, ["1.1"])


def test_a_peer_without_find_is_told() -> None:
    with pynetdicom_scp([(CT, [EXPLICIT])], []) as peer, pytest.raises(NoCommonContext, match="C-FIND"):
        find_instances(SETTINGS, peer, STUDY, ["1.1"])


@pytest.mark.system
def test_orthanc_has_what_was_sent_to_it(tmp_path: Path) -> None:
    objects = []
    for number in range(1, 6):
        path = write(ct_image(number), tmp_path / f"{number}.dcm")
        objects.append(Outgoing(path, CT, f"{STUDY}.1.{number}", EXPLICIT))
    with Orthanc(tmp_path / "orthanc", node=Remote("NODE", 1)) as orthanc:
        peer = Peer(aet=orthanc.aet, host="127.0.0.1", port=orthanc.port)
        report = echo(SETTINGS, peer)
        assert report.commitment
        assert report.find
        assert set(report.stores) == set(RESULT_CLASSES)
        assert find_instances(SETTINGS, peer, STUDY, [f"{STUDY}.1"]) == set()
        assert all(answer.status == 0 for answer in send(SETTINGS, peer, objects))
        assert find_instances(SETTINGS, peer, STUDY, [f"{STUDY}.1"]) == {one.sop_instance_uid for one in objects}
    shutil.rmtree(tmp_path / "orthanc")
