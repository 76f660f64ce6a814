"""Everything odd that others collected is sent: the node stays up, and each file has a fate that stands on record."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, MediaStorageDirectoryStorage
from sqlalchemy import select

from node.db import tables
from system import dcmtk, studies
from system.dcmtk import Address
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.processes import free_port
from system.raw_sender import Encoded, NotAccepted, RawSender
from system.standin import StandIn

pytestmark = [pytest.mark.data, pytest.mark.timeout(900)]

SUCCESS, CONFLICT = 0x0000, 0xC001
FILES = 352


@dataclass(frozen=True)
class Sent:
    """One file as it was put on the wire, and what the node answered."""

    file: Path
    uid: str
    status: int | None
    """None: the presentation context or association was not accepted."""


@dataclass(frozen=True)
class House:
    node: Node
    ledger: Ledger
    pacs: StandIn
    sent: tuple[Sent, ...]

    def fates(self) -> dict[str, Counter[str]]:
        """Actions on record for each SOP Instance UID."""
        found: dict[str, Counter[str]] = {}
        for event in self.ledger.rows(
            select(tables.AuditEventRow).where(tables.AuditEventRow.action.like("instance.%"))
        ):
            found.setdefault(str(event.detail["sop_instance_uid"]), Counter())[event.action] += 1
        return found


def on_the_wire(file: Path) -> tuple[str, str, str, bytes]:
    """(SOP class, SOP instance, transfer syntax, data set bytes); what is no DICOM file is sent as if it were a CT."""
    content = file.read_bytes()
    made_up = studies.uid("odd", file.name, len(content))
    if content[128:132] != b"DICM":
        return CTImageStorage, made_up, ImplicitVRLittleEndian, content
    group_length = int.from_bytes(content[140:144], "little") if content[132:136] == b"\2\0\0\0" else 0
    data_set = content[144 + group_length if group_length else 132 :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd is what they are
        read = dcmread(file, force=True, specific_tags=["SOPInstanceUID", "SOPClassUID"])
        sop_class = read.get("SOPClassUID") or read.file_meta.get("MediaStorageSOPClassUID")
        instance = read.get("SOPInstanceUID") or read.file_meta.get("MediaStorageSOPInstanceUID")
        syntax = read.file_meta.get("TransferSyntaxUID")
    return str(sop_class or CTImageStorage), str(instance or made_up), str(syntax or ImplicitVRLittleEndian), data_set


def send(node: Node, file: Path) -> Sent:
    sop_class, instance, syntax, data_set = on_the_wire(file)
    to = node.address
    try:
        with RawSender(
            to.host, to.port, called=to.aet, calling="MODALITY", sop_class=sop_class, transfer_syntax=syntax
        ) as sender:
            (status,) = sender.send([Encoded(instance, data_set)])
    except NotAccepted:
        return Sent(file, instance, None)
    return Sent(file, instance, status)


@pytest.fixture(scope="module")
def house(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    studies.real_study("odd-dicom", unpacked)
    files = sorted(path for path in (unpacked / "odd-dicom").rglob("*") if path.is_file())
    folder = tmp_path_factory.mktemp("odd")
    port = free_port()
    with StandIn(folder / "pacs", reports_to=Address("NODE", port), aet="PACS") as pacs:
        peers = [PeerEntry("MODALITY", quiet_s=20, may_receive=False), PeerEntry("PACS", port=pacs.port)]
        with Node(folder / "node", site=site_text(peers, {"*": ["PACS"]}), port=port) as node:
            sent = tuple(send(node, file) for file in files)
            yield House(node, Ledger(node), pacs, sent)


def test_all_files_were_sent_and_the_node_is_still_up(house: House) -> None:
    assert len(house.sent) == FILES
    assert dcmtk.echoscu(house.node.address).ok
    assert house.node.web("/healthz").status_code == 200
    assert "ended (exit code" not in house.node.tail()


def test_every_file_has_a_fate_on_record(house: House) -> None:
    fates = house.fates()
    taken = Counter(on_record(sent) for sent in house.sent if sent.status is not None)
    for uid, number in taken.items():
        assert sum(fates.get(uid, Counter()).values()) == number, (uid, number, fates.get(uid))


def on_record(sent: Sent) -> str:
    """The UID under which an object is recorded; what is no UID is not repeated in the trail."""
    return sent.uid if re.fullmatch(r"[0-9.]{1,64}", sent.uid) else ""


def test_only_what_is_no_storage_object_is_turned_away_before_it_is_sent(house: House) -> None:
    turned_away = {on_the_wire(sent.file)[0] for sent in house.sent if sent.status is None}
    assert turned_away <= {MediaStorageDirectoryStorage}
    events = house.node.json("audit", "--action", "association.closed", "--limit", "5000")
    assert len({event["detail"]["association"] for event in events}) >= FILES
    empty = [event for event in events if event["detail"]["stored"] == event["detail"]["refused"] == 0]
    assert len(empty) >= sum(sent.status is None for sent in house.sent)


def test_what_was_answered_with_success_is_in_the_archive_bit_for_bit(house: House) -> None:
    rows = {row.sop_instance_uid: row for row in house.ledger.rows(select(tables.InstanceRow))}
    first: dict[str, Sent] = {}
    for sent in house.sent:
        if sent.status == SUCCESS:
            first.setdefault(sent.uid, sent)
    assert len(first) > 200
    for uid, sent in first.items():
        archived = house.node.home / "archive" / rows[uid].path
        data_set = on_the_wire(sent.file)[3]
        assert archived.read_bytes().endswith(data_set), sent.file


def test_the_answer_agrees_with_the_record(house: House) -> None:
    fates = house.fates()
    kept = {"instance.stored", "instance.duplicate", "instance.own_result"}
    for sent in house.sent:
        if sent.status is None:
            continue
        actions = set(fates[on_record(sent)])
        if sent.status == SUCCESS:
            assert kept & actions, sent
        elif sent.status == CONFLICT:
            assert "instance.conflict" in actions, sent
        else:
            assert {"instance.refused", "instance.lost"} & actions, sent


def test_every_study_among_them_ends_with_a_report_in_the_pacs(house: House) -> None:
    uids = house.ledger.rows(select(tables.RevisionRow.study_instance_uid).distinct())
    assert len(uids) > 20
    for uid in uids:
        house.ledger.wait_ended(uid, timeout_s=600)
    reported = {str(ds.StudyInstanceUID) for ds in house.pacs.datasets() if ds.Modality == "SR"}
    assert {uid for uid in uids if uid not in reported} == set()
    failed = [job for uid in uids for job in house.ledger.jobs(uid) if job.state == "failed"]
    assert not failed, [(job.pipeline, job.series_instance_uid, job.reason) for job in failed]


def test_the_trail_holds(house: House) -> None:
    assert house.node.command("audit", "verify").ok
