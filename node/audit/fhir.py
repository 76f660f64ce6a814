"""An audit message as FHIR's AuditEvent (R4), and pages of them.

source  HL7 FHIR R4 AuditEvent (its mapping to DICOM), Bundle, OperationOutcome
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from node.audit.codes import OWN_SYSTEM, Code
from node.audit.message import Message, Origin, Participant, Subject
from node.audit.xml import access_point_type

Resource = dict[str, Any]

CONTENT_TYPE = "application/fhir+json; fhirVersion=4.0"

_SYSTEMS = {
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RFC-3881": "urn:ietf:rfc:3881",
    OWN_SYSTEM: "urn:pacsnode:action",
}
_OBJECT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_LIFE_CYCLE = "http://terminology.hl7.org/CodeSystem/dicom-audit-lifecycle"
_SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_DICOM_UID = "urn:dicom:uid"
_OF_STUDY = "110180"


def to_resource(message: Message, origin: Origin, *, identity: str) -> Resource:
    """The AuditEvent of this id."""
    source: Resource = {
        "observer": {"display": origin.aet},
        "type": [{"system": _SOURCE_TYPE, "code": "4", "display": "Application Server"}],
    }
    if origin.site:
        source["site"] = origin.site
    event: Resource = {
        "resourceType": "AuditEvent",
        "id": identity,
        "type": _coding(message.event),
        "subtype": [_coding(code) for code in message.types],
        "action": str(message.action),
        "recorded": message.at,
        "outcome": str(message.outcome),
        "outcomeDesc": message.description,
        "agent": [_agent(participant) for participant in message.participants],
        "source": source,
        "entity": [_entity(subject) for subject in message.subjects],
    }
    return {name: value for name, value in event.items() if value not in ("", [])}


def bundle(resources: Sequence[Resource], *, url: str, following: str) -> Resource:
    """One page of a search. `url` is its own; `following` that of the next page, empty where there is none."""
    links = [{"relation": "self", "url": url}]
    if following:
        links.append({"relation": "next", "url": following})
    base = url.partition("?")[0]
    entries = [
        {"fullUrl": f"{base}/{resource['id']}", "resource": resource, "search": {"mode": "match"}}
        for resource in resources
    ]
    return {"resourceType": "Bundle", "type": "searchset", "link": links, **({"entry": entries} if entries else {})}


def complaint(code: str, text: str) -> Resource:
    """An OperationOutcome: why nothing is answered. `code` of HL7's issue-type."""
    issue = {"severity": "error", "code": code, "diagnostics": text}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _coding(code: Code) -> Resource:
    return {"system": _SYSTEMS[code.system], "code": code.value, "display": code.meaning}


def _agent(participant: Participant) -> Resource:
    agent: Resource = {"who": {"identifier": {"value": participant.user_id}}, "requestor": participant.is_requestor}
    if participant.role is not None:
        agent["type"] = {"coding": [_coding(participant.role)]}
    if participant.alternative_id:
        agent["altId"] = participant.alternative_id
    if participant.name:
        agent["name"] = participant.name
    if participant.host:
        agent["network"] = {"address": participant.host, "type": access_point_type(participant.host)}
    return agent


def _entity(subject: Subject) -> Resource:
    is_study = subject.id_type.value == _OF_STUDY
    identifier = {"system": _DICOM_UID, "value": f"urn:oid:{subject.id}"} if is_study else {"value": subject.id}
    entity: Resource = {
        "what": {"identifier": {"type": {"coding": [_coding(subject.id_type)]}, **identifier}},
        "type": {"system": _OBJECT_TYPE, "code": str(int(subject.type))},
    }
    if subject.role is not None:
        entity["role"] = {"system": _OBJECT_ROLE, "code": str(int(subject.role))}
    if subject.life_cycle is not None:
        entity["lifecycle"] = {"system": _LIFE_CYCLE, "code": str(int(subject.life_cycle))}
    if subject.query:
        entity["query"] = _base64(subject.query)
    elif subject.name:
        entity["name"] = subject.name
    found = [_detail(name, value) for name, value in subject.details.items()]
    found += [_detail(f"SOPClass {uid}", str(count)) for uid, count in sorted(subject.sop_classes.items())]
    return {**entity, **({"detail": found} if found else {})}


def _detail(name: str, value: str) -> Resource:
    return {"type": name, "valueBase64Binary": _base64(value)}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf8", "replace")).decode("ascii")
