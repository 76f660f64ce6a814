"""What an audit message says, before it is written as PS3.15 XML (node.audit.xml) or FHIR (node.audit.fhir)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from node.audit.codes import Code


class EventAction(StrEnum):
    """EventActionCode, PS3.15 A.5.2."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class ObjectType(IntEnum):
    """ParticipantObjectTypeCode, PS3.15 A.5.1."""

    PERSON = 1
    SYSTEM = 2


class ObjectRole(IntEnum):
    """ParticipantObjectTypeCodeRole, PS3.15 A.5.1.2.2."""

    PATIENT = 1
    REPORT = 3
    SECURITY_RESOURCE = 13


class LifeCycle(IntEnum):
    """ParticipantObjectDataLifeCycle, PS3.15 A.5.1.2.3."""

    LOGICAL_DELETION = 14
    PERMANENT_ERASURE = 15


@dataclass(frozen=True)
class Participant:
    """A person or process that took part."""

    user_id: str
    alternative_id: str = ""
    name: str = ""
    is_requestor: bool = False
    role: Code | None = None
    host: str = ""
    """IP address or machine name."""


@dataclass(frozen=True)
class Subject:
    """What the event was about (a participant object)."""

    id: str
    id_type: Code
    type: ObjectType
    role: ObjectRole | None = None
    name: str = ""
    query: str = ""
    """What was searched for, in place of a name."""
    life_cycle: LifeCycle | None = None
    sop_classes: Mapping[str, int] = field(default_factory=dict)
    """{SOP Class UID: how many instances}."""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    event: Code
    action: EventAction
    at: str
    """ISO 8601, as in the trail."""
    outcome: int
    """0 success, 4 minor failure, 8 serious failure."""
    types: tuple[Code, ...]
    description: str
    """Why it failed, and which events of the trail this message tells of."""
    participants: tuple[Participant, ...]
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Who reports: AuditSourceIdentification."""

    aet: str
    site: str = ""
