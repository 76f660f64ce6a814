"""An audit message as DICOM's XML.

source  PS3.15 A.5.1.1 (schema), A.5.2 (conventions)
"""

from __future__ import annotations

import base64
import ipaddress
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from node.audit.codes import Code
from node.audit.message import Message, Origin, Participant, Subject

_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'
_APPLICATION_SERVER = "4"
_LONGEST = 512
"""Octets of a text: a header may hold a megabyte where a name belongs, and receivers cut messages anywhere."""
_BREAKS = re.compile(r"[\t\n\r]+")
_NOT_IN_XML = re.compile("[^\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 document may hold, which headers may; and line breaks, which no message needs."""


def to_xml(message: Message, origin: Origin) -> bytes:
    """One document in UTF-8, without line breaks."""
    root = Element("AuditMessage")
    event = SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=message.at,
        EventOutcomeIndicator=str(message.outcome),
    )
    _coded(event, "EventID", message.event)
    for code in message.types:
        _coded(event, "EventTypeCode", code)
    if message.description:
        SubElement(event, "EventOutcomeDescription").text = _clean(message.description)
    for participant in message.participants:
        _participant(root, participant)
    source = SubElement(root, "AuditSourceIdentification", AuditSourceID=_clean(origin.aet))
    if origin.site:
        source.set("AuditEnterpriseSiteID", _clean(origin.site))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for subject in message.subjects:
        _subject(root, subject)
    return _DECLARATION + ElementTree.tostring(root, encoding="unicode").encode("utf8")


def access_point_type(host: str) -> str:
    """NetworkAccessPointTypeCode: "2" of an address, "1" of a machine's name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "1"
    return "2"


def _coded(parent: Element, name: str, code: Code) -> None:
    SubElement(
        parent,
        name,
        {"csd-code": _clean(code.value), "codeSystemName": code.system, "originalText": _clean(code.meaning)},
    )


def _participant(root: Element, participant: Participant) -> None:
    one = SubElement(
        root,
        "ActiveParticipant",
        UserID=_clean(participant.user_id),
        UserIsRequestor="true" if participant.is_requestor else "false",
    )
    if participant.alternative_id:
        one.set("AlternativeUserID", _clean(participant.alternative_id))
    if participant.name:
        one.set("UserName", _clean(participant.name))
    if participant.host:
        one.set("NetworkAccessPointID", _clean(participant.host))
        one.set("NetworkAccessPointTypeCode", access_point_type(participant.host))
    if participant.role is not None:
        _coded(one, "RoleIDCode", participant.role)


def _subject(root: Element, subject: Subject) -> None:
    one = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(subject.id),
        ParticipantObjectTypeCode=str(int(subject.type)),
    )
    if subject.role is not None:
        one.set("ParticipantObjectTypeCodeRole", str(int(subject.role)))
    if subject.life_cycle is not None:
        one.set("ParticipantObjectDataLifeCycle", str(int(subject.life_cycle)))
    _coded(one, "ParticipantObjectIDTypeCode", subject.id_type)
    if subject.query:
        SubElement(one, "ParticipantObjectQuery").text = _base64(subject.query)
    else:
        SubElement(one, "ParticipantObjectName").text = _clean(subject.name or subject.id)  # the schema wants one
    for name, value in subject.details.items():
        SubElement(one, "ParticipantObjectDetail", type=_clean(name), value=_base64(value))
    if subject.sop_classes:
        described = SubElement(one, "ParticipantObjectDescription")
        for uid, count in sorted(subject.sop_classes.items()):
            SubElement(described, "SOPClass", UID=_clean(uid), NumberOfInstances=str(count))


def _base64(text: str) -> str:
    return base64.b64encode(_short(text).encode("utf8", "replace")).decode("ascii")


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", _BREAKS.sub(" ", _short(text)))


def _short(text: str) -> str:
    octets = text.encode("utf8", "replace")
    return text if len(octets) <= _LONGEST else octets[:_LONGEST].decode("utf8", "ignore") + "…"
