"""Events as messages of PS3.15, held to the standard by what was written from its text."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.ps3_15 import complaints
from node.audit.chain import Sealed
from node.audit.events import FAILED, Action
from node.audit.grouping import UNTOLD, Told
from node.audit.meaning import Caller, Facts, Teller
from node.audit.message import Message, Origin
from node.audit.xml import to_xml

from .stored import STUDY, Trail, one_of_each

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"
FACTS = Facts(
    callers={"a-1": Caller("10.1.0.7", "CN=CT 1,O=Radiology")},
    classes={**{f"{STUDY}.1.{n}": CT for n in range(1, 4)}, f"{STUDY}.9.1": SR},
    hosts={"PACS": "pacs.hospital", "BACKUP": "10.1.0.9"},
    made={7: {CT: 3}},
    on_their_way={(STUDY, 1, "PACS"): {SR: 1, CT: 2}, (STUDY, 1, "BACKUP"): {SR: 1}},
)
ORIGIN = Origin("NODE", "St. Elsewhere")
MOST_OCTETS = 32768  # PS3.15 A.6: what every receiver takes


def tell(*events: Sealed, facts: Facts = FACTS) -> list[Message]:
    return Teller("NODE", facts).tell(Told(events, events[-1].number))


def xml(message: Message) -> ElementTree.Element:
    document = to_xml(message, ORIGIN)
    assert complaints(document) == []
    return ElementTree.fromstring(document)


@pytest.mark.parametrize("event", one_of_each(), ids=lambda event: event.action)
def test_every_event_has_messages_as_the_standard_has_them(event: Sealed) -> None:
    for facts in (FACTS, Facts()):
        for message in Teller("NODE", facts).tell_one(event):
            xml(message)


def test_every_action_is_told_in_the_standards_words_or_is_known_to_be_bookkeeping() -> None:
    nameless = {e.action for e in one_of_each() if "DCM" not in {m.event.system for m in tell(e)}}
    assert nameless == UNTOLD | {Action.ASSOCIATION_CLOSED}


def test_what_an_association_brought_is_a_transfer_with_its_images_counted() -> None:
    trail = Trail()
    images = [trail.image(Action.INSTANCE_STORED, n) for n in (1, 2, 3)]
    (message,) = tell(*images)
    root = xml(message)
    event = root.find("EventIdentification")
    assert event is not None
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("C", "0")
    assert event.get("EventDateTime") == images[-1].at
    source, destination = root.findall("ActiveParticipant")
    assert source.attrib == {
        "UserID": "CT1",
        "AlternativeUserID": "AETITLES=CT1",
        "UserName": "CN=CT 1,O=Radiology",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.1.0.7",
        "NetworkAccessPointTypeCode": "2",
    }
    assert destination.attrib == {
        "UserID": "receive@node1:11112",
        "AlternativeUserID": "AETITLES=NODE",
        "UserIsRequestor": "false",
        "NetworkAccessPointID": "node1",
        "NetworkAccessPointTypeCode": "1",
    }
    study, patient = root.findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == STUDY
    assert [one.attrib for one in study.iter("SOPClass")] == [{"UID": CT, "NumberOfInstances": "3"}]
    assert patient.get("ParticipantObjectID") == "P-1"
    assert root.find("AuditSourceIdentification").attrib == {  # type: ignore[union-attr]
        "AuditSourceID": "NODE",
        "AuditEnterpriseSiteID": "St. Elsewhere",
    }


@pytest.mark.parametrize(
    ("action", "code", "outcome"),
    [
        (Action.INSTANCE_STORED, "C", "success"),
        (Action.INSTANCE_HELD_AGAIN, "C", "success"),
        (Action.INSTANCE_DUPLICATE, "R", "success"),
        (Action.INSTANCE_CONFLICT, "R", FAILED),
    ],
)
def test_only_what_we_did_not_hold_is_created_by_a_transfer(action: Action, code: str, outcome: str) -> None:
    (message,) = tell(Trail().image(action, 1, outcome=outcome))
    assert (message.action, message.outcome) == (code, 8 if outcome == FAILED else 0)


def test_a_result_that_was_sent_says_who_has_it() -> None:
    (message,) = tell(Trail().sent(1))
    root = xml(message)
    source, destination = root.findall("ActiveParticipant")
    assert (source.get("UserID"), source.get("UserIsRequestor")) == ("deliver@node1:42.1000", "true")
    assert (destination.get("UserID"), destination.get("NetworkAccessPointID")) == ("PACS", "pacs.hospital")
    assert [one.get("UID") for one in root.iter("SOPClass")] == [SR]
    assert message.action == "R"  # whether the receiver held it, only the receiver knows


def test_what_is_to_be_sent_is_told_for_each_destination() -> None:
    [event] = [event for event in one_of_each() if event.action == Action.REVISION_REPORTED]
    messages = tell(event)
    assert [m.participants[1].user_id for m in messages] == ["PACS", "BACKUP"]
    assert [dict(m.subjects[0].sop_classes) for m in messages] == [{SR: 1, CT: 2}, {SR: 1}]


def test_a_study_is_deleted_twice_first_given_up_and_then_gone() -> None:
    found = [
        tell(event)[0] for event in one_of_each() if event.action.startswith("study.") and "D" in tell(event)[0].action
    ]
    assert [message.subjects[0].life_cycle for message in found] == [14, 15]
    who = xml(found[0]).find("ActiveParticipant")
    assert who is not None
    assert (who.get("UserID"), who.get("AlternativeUserID")) == ("auditor@node1", None)  # a person has no AE title


def test_who_is_not_let_in_is_an_alert_that_names_the_address_and_the_reason() -> None:
    event = Trail().add(
        Action.ASSOCIATION_REFUSED,
        outcome=FAILED,
        peer="EVIL",
        actor="receive@node1:11112",
        detail={"association": "unknown", "host": "10.9.9.9", "reason": "no peer 'EVIL' is registered"},
    )
    (message,) = tell(event)
    root = xml(message)
    assert [code.get("csd-code") for code in root.iter("EventTypeCode")] == ["110126", "association.refused"]
    (subject,) = root.findall("ParticipantObjectIdentification")
    assert subject.get("ParticipantObjectID") == "10.9.9.9"
    assert message.subjects[0].details == {"Alert Description": "no peer 'EVIL' is registered"}
    assert root.findall("ActiveParticipant")[1].get("NetworkAccessPointID") == "10.9.9.9"


def test_who_came_no_further_than_the_tls_handshake_is_an_alert_of_its_address() -> None:
    detail = {"host": "10.9.9.9", "reason": "TLS: its certificate does not hold (certificate has expired)"}
    event = Trail().add(Action.ASSOCIATION_REFUSED, outcome=FAILED, actor="receive@node1:11112", detail=detail)
    root = xml(tell(event)[0])
    (subject,) = root.findall("ParticipantObjectIdentification")
    assert subject.get("ParticipantObjectID") == "10.9.9.9"
    (participant,) = root.findall("ActiveParticipant")
    assert participant.get("UserID") == "receive@node1:11112"


def test_an_object_without_a_study_is_no_transfer_but_an_alert() -> None:
    [refused] = [event for event in one_of_each() if event.action == Action.INSTANCE_REFUSED]
    (message,) = tell(refused)
    assert message.event.meaning == "Security Alert"
    assert message.outcome == 8


def test_an_analysis_that_made_nothing_made_no_instances() -> None:
    [done] = [event for event in one_of_each() if event.action == Action.JOB_DONE]
    assert tell(done)[0].action == "C"
    assert tell(done, facts=Facts()) == []


def test_who_lists_studies_issues_a_query_that_says_what_was_asked() -> None:
    event = Trail().add(Action.STUDIES_LISTED, actor="ann@node1", detail={"search": "Müller", "studies": 3})
    root = xml(tell(event)[0])
    (query,) = root.iter("ParticipantObjectQuery")
    assert json.loads(base64.b64decode(query.text or "")) == {"search": "Müller", "studies": 3}
    assert root.findall("ActiveParticipant")[0].get("UserID") == "ann@node1"
    assert len(tell(event)[0].subjects) == 1
    of_one = xml(tell(Trail().add(Action.STUDIES_LISTED, actor="ann@node1", patient_id="P-1"))[0])
    assert of_one.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") == "P-1"


def test_a_hold_changes_a_study_and_a_look_reads_it() -> None:
    trail = Trail()
    for action, code in ((Action.STUDY_HELD, "U"), (Action.STUDY_RELEASED, "U"), (Action.STUDY_VIEWED, "R")):
        (message,) = tell(trail.add(action, study=True, actor="ann@node1", detail={"because": "a lawsuit"}))
        assert (message.event.value, message.action) == ("110103", code)
        assert message.description.endswith("; a lawsuit")


def test_a_patient_is_named_only_where_names_are_told() -> None:
    event = Trail().image(Action.INSTANCE_STORED, 1)
    assert b"PHANTOM" not in to_xml(tell(event)[0], ORIGIN)
    named = dataclasses.replace(FACTS, names={STUDY: "PHANTOM^TEST"})
    assert b">PHANTOM^TEST<" in to_xml(tell(event, facts=named)[0], ORIGIN)


def test_a_message_says_which_events_it_tells_of() -> None:
    trail = Trail(first=41)
    images = [trail.image(Action.INSTANCE_STORED, n) for n in (1, 2)]
    assert tell(*images)[0].description == f"2 events up to 42 of the trail, sha256 {images[1].digest}"
    dead = trail.sent(1, Action.DELIVERY_DEAD, outcome=FAILED, detail={"reason": "answered 0xA900"})
    assert tell(dead)[0].description == f"event 43 of the trail, sha256 {dead.digest}; answered 0xA900"


def test_a_change_of_a_thousand_peers_fits_into_a_message() -> None:
    fields = [f"CT{n} host: 10.0.0.1 → 10.{n // 256}.{n % 256}.1" for n in range(1000)]
    (message,) = tell(Trail().add(Action.PEERS_APPLIED, actor="root@node1", detail={"fields": fields}))
    document = to_xml(message, ORIGIN)
    assert complaints(document) == []
    assert len(document) < MOST_OCTETS
    assert message.subjects[-1].details == {"Alert Description": "and 992 more changes"}


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=2000)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)
NAMES = (
    "association",
    "sop_instance_uid",
    "reason",
    "because",
    "job",
    "revision",
    "destinations",
    "host",
    "added",
    "fields",
)


@given(
    st.sampled_from(Action),
    st.sampled_from(["success", "minor failure", "serious failure", "odd"]),
    st.lists(st.text(max_size=2000), min_size=4, max_size=4),
    st.one_of(ANYTHING, st.dictionaries(st.sampled_from(NAMES), ANYTHING)),
)
def test_whatever_headers_or_meddlers_put_into_an_event_its_message_is_one(
    action: Action, outcome: str, texts: list[str], detail: object
) -> None:
    event = Trail().add(action, outcome=outcome)
    peer, study, patient, actor = texts
    event = dataclasses.replace(
        event,
        peer=peer,
        study_instance_uid=study,
        patient_id=patient,
        actor=actor,
        detail=detail,  # type: ignore[arg-type]
    )
    for message in Teller("NODE", dataclasses.replace(FACTS, names={study: patient})).tell_one(event):
        document = to_xml(message, ORIGIN)
        assert complaints(document) == []
        assert len(document) < MOST_OCTETS
        assert not re.search(rb"[\r\n]", document)


def test_the_checker_finds_what_is_wrong() -> None:
    good = to_xml(tell(Trail().image(Action.INSTANCE_STORED, 1))[0], ORIGIN)
    for old, new in (
        (b'csd-code="110153"', b'csd-code="110152"'),
        (b"ActiveParticipant", b"Participant"),
        (b' UserIsRequestor="false"', b""),
        (b' UserIsRequestor="false"', b' UserIsRequestor="true"'),
        (b'EventActionCode="C"', b'EventActionCode="D"'),
        (b"+00:00", b""),
        (b'ObjectTypeCode="1"', b'ObjectTypeCode="2"'),
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="success"'),
        (b"ParticipantObjectName>", b"ParticipantObjectNames>"),
        (b"<EventTypeCode", b"text<EventTypeCode"),
        (b'NumberOfInstances="1"', b'NumberOfInstances="one"'),
        (b'NetworkAccessPointTypeCode="1"', b""),
    ):
        assert old in good
        assert complaints(good.replace(old, new)), (old, new)
