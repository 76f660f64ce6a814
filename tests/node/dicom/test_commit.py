"""Storage commitment: asked of other makes, answered on the same association or to our listener."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, STUDY, ct_image, write
from network.pacs import pynetdicom_scp, scripted
from network.raw import RawPeer, associate_ac, command, message
from node.dicom.commit import read_report, request_commitment
from node.dicom.fragments import Malformed
from node.dicom.messages import encode_data_set
from node.dicom.receive import StorageScp
from node.dicom.send import Outgoing, send
from node.errors import NoCommonContext, PeerBusy, PeerRefused, PeerUnreachable
from node.settings import Peer, Settings
from system.orthanc import Orthanc, Remote

SETTINGS = Settings(aet="PACSNODE", dimse_timeout_s=5)
COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
REFERENCES = [(CT, "1.2.3.1"), (CT, "1.2.3.2")]


def report(transaction_uid: str, committed: list[str], failed: list[str]) -> Dataset:
    told = Dataset()
    told.TransactionUID = transaction_uid
    told.ReferencedSOPSequence = [reference(uid) for uid in committed]
    told.FailedSOPSequence = [reference(uid) for uid in failed]
    for item in told.FailedSOPSequence:
        item.FailureReason = 0x0112
    return told


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
    return item


def test_the_request_names_every_instance_and_the_report_comes_to_our_listener(
    scp: StorageScp, desk: RecordingDesk
) -> None:
    asked: list[Dataset] = []

    def on_action(event: Any) -> tuple[int, None]:
        assert event.action_type == 1
        assert event.request.RequestedSOPInstanceUID == INSTANCE
        asked.append(event.action_information)
        return 0x0000, None

    with pynetdicom_scp([(COMMITMENT, [EXPLICIT])], [(evt.EVT_N_ACTION, on_action)]) as peer:
        assert request_commitment(SETTINGS, peer, "1.2.9", REFERENCES) is None
    assert asked[0].TransactionUID == "1.2.9"
    pairs = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in asked[0].ReferencedSOPSequence]
    assert pairs == REFERENCES

    pacs = AE("PACS")
    pacs.add_requested_context(COMMITMENT)
    association = pacs.associate("127.0.0.1", scp.port, ext_neg=[build_role(COMMITMENT, scp_role=True)])
    association.send_n_event_report(report("1.2.9", ["1.2.3.1"], ["1.2.3.2"]), 2, COMMITMENT, INSTANCE)
    association.release()
    assert desk.reports[0].transaction_uid == "1.2.9"
    assert desk.reports[0].committed == {"1.2.3.1"}
    assert set(desk.reports[0].failed) == {"1.2.3.2"}


def reporting(*, transaction_uid: str, before: bool) -> Any:
    """A PACS that reports on the association of the request, before or after its response."""

    def play(peer: RawPeer) -> None:
        peer.say(associate_ac(peer.hear()[1]))
        assert peer.hear()[0] == 4
        assert peer.hear()[0] == 4
        response = message(
            1, command(e0002=COMMITMENT, e0100=0x8130, e0120=1, e0800=0x0101, e0900=0, e1000=INSTANCE, e1008=1)
        )
        event = message(
            1,
            command(e0002=COMMITMENT, e0100=0x0100, e0110=4, e0800=1, e1000=INSTANCE, e1002=1),
            encode_data_set(report(transaction_uid, ["1.2.3.1", "1.2.3.2"], []), EXPLICIT),
        )
        peer.say(event + response if before else response + event)
        assert peer.hear_response()[0x0100] == 0x8100
        kind, _ = peer.hear()
        assert kind == 5
        peer.say(b"\x06\0\0\0\0\4\0\0\0\0")

    return play


@pytest.mark.parametrize("before", [True, False])
def test_a_report_on_the_same_association_is_returned(before: bool) -> None:
    with scripted(reporting(transaction_uid="1.2.9", before=before)) as peer:
        answer = request_commitment(SETTINGS, peer, "1.2.9", REFERENCES)
    assert answer is not None
    assert answer.committed == {"1.2.3.1", "1.2.3.2"}
    assert answer.failed == {}


def test_a_report_on_another_transaction_is_not_ours() -> None:
    with scripted(reporting(transaction_uid="1.2.8", before=False)) as peer:
        assert request_commitment(SETTINGS, peer, "1.2.9", REFERENCES) is None


def test_a_peer_without_the_service_is_told() -> None:
    with pynetdicom_scp([(CT, [EXPLICIT])], []) as peer, pytest.raises(NoCommonContext, match="commitment"):
        request_commitment(SETTINGS, peer, "1.2.9", REFERENCES)


@pytest.mark.parametrize(
    ("status", "kind"), [(0x0110, PeerBusy), (0x0213, PeerBusy), (0x0112, PeerRefused), (0x0122, PeerRefused)]
)
def test_a_refused_request_is_an_error(status: int, kind: type[Exception]) -> None:
    handlers = [(evt.EVT_N_ACTION, lambda event: (status, None))]
    with pynetdicom_scp([(COMMITMENT, [EXPLICIT])], handlers) as peer, pytest.raises(kind, match="N-ACTION"):
        request_commitment(SETTINGS, peer, "1.2.9", REFERENCES)


def test_an_abort_instead_of_an_answer_is_unreachable() -> None:
    handlers = [(evt.EVT_N_ACTION, lambda event: event.assoc.abort() or (0, None))]
    with pynetdicom_scp([(COMMITMENT, [EXPLICIT])], handlers) as peer, pytest.raises(PeerUnreachable):
        request_commitment(SETTINGS, peer, "1.2.9", REFERENCES)


def test_what_stands_in_both_lists_is_not_committed() -> None:
    told = read_report(encode_data_set(report("1.2", ["1.1", "1.2"], ["1.2"]), EXPLICIT), EXPLICIT)
    assert told.committed == {"1.1"}
    assert set(told.failed) == {"1.2"}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_malformed(rubbish: bytes) -> None:
    try:
        told = read_report(rubbish, EXPLICIT)
    except Malformed:
        return
    assert told.transaction_uid


@pytest.mark.system
def test_orthanc_reports_what_it_has_and_what_it_has_not(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    objects = []
    for number in range(1, 4):
        path = write(ct_image(number), tmp_path / f"{number}.dcm")
        objects.append(Outgoing(path, CT, f"{STUDY}.1.{number}", EXPLICIT))
    with Orthanc(tmp_path / "orthanc", node=Remote("PACSNODE", scp.port)) as orthanc:
        peer = Peer(aet=orthanc.aet, host="127.0.0.1", port=orthanc.port)
        assert all(answer.status == 0 for answer in send(SETTINGS, peer, objects))
        references = [(CT, one.sop_instance_uid) for one in objects]
        assert request_commitment(SETTINGS, peer, "2.25.1", references) is None
        desk.wait(lambda desk: desk.reports)
        assert request_commitment(SETTINGS, peer, "2.25.2", [*references, (CT, "1.2.3.4")]) is None
        desk.wait(lambda desk: len(desk.reports) == 2)
    sent = {one.sop_instance_uid for one in objects}
    first, second = desk.reports
    assert (first.transaction_uid, first.committed, first.failed) == ("2.25.1", sent, {})
    assert (second.transaction_uid, second.committed) == ("2.25.2", sent)
    assert second.failed == {"1.2.3.4": "0x0112 (no such object instance)"}
    assert desk.callers[0].calling_aet == orthanc.aet
    shutil.rmtree(tmp_path / "orthanc")
