"""What PS3.15 A.5 demands of a message: from its schema (A.5.1.1) and tables (A.5.3), not from what writes ours."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Iterator
from xml.dom import minidom
from xml.dom.minidom import Element

CODED = {"csd-code": r".+", "codeSystemName": r".+", "originalText": r".+"}
CODED_MAY = {"displayName": r".*"}
NUMBERS = {
    "ParticipantObjectTypeCode": r"[1-4]",
    "ParticipantObjectTypeCodeRole": r"[1-9]|1\d|2[0-6]",
    "ParticipantObjectDataLifeCycle": r"[1-9]|1[0-5]",
}

# name: (attributes that must be there, that may, children in their order with how many of each)
Rule = tuple[dict[str, str], dict[str, str], list[tuple[str, int, int]]]
MANY = 10**6
GRAMMAR: dict[str, Rule] = {
    "AuditMessage": (
        {},
        {},
        [
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, MANY),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, MANY),
        ],
    ),
    "EventIdentification": (
        {"EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*", "EventOutcomeIndicator": r"0|4|8|12"},
        {"EventActionCode": r"[CRUDE]"},
        [("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)],
    ),
    "EventID": (CODED, CODED_MAY, []),
    "EventTypeCode": (CODED, CODED_MAY, []),
    "EventOutcomeDescription": ({}, {}, []),
    "ActiveParticipant": (
        {"UserID": r".*", "UserIsRequestor": r"true|false|0|1"},
        {
            "AlternativeUserID": r".*",
            "UserName": r".*",
            "NetworkAccessPointID": r".*",
            "NetworkAccessPointTypeCode": r"[1-5]",
        },
        [("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)],
    ),
    "RoleIDCode": (CODED, CODED_MAY, []),
    "AuditSourceIdentification": (
        {"AuditSourceID": r".*"},
        {"AuditEnterpriseSiteID": r".*"},
        [("AuditSourceTypeCode", 0, MANY)],
    ),
    "AuditSourceTypeCode": ({"csd-code": r".+"}, {}, []),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID": r".*"},
        {**NUMBERS, "ParticipantObjectSensitivity": r".*"},
        [
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName", 0, 1),
            ("ParticipantObjectQuery", 0, 1),
            ("ParticipantObjectDetail", 0, MANY),
            ("ParticipantObjectDescription", 0, MANY),
        ],
    ),
    "ParticipantObjectIDTypeCode": (CODED, CODED_MAY, []),
    "ParticipantObjectName": ({}, {}, []),
    "ParticipantObjectQuery": ({}, {}, []),
    "ParticipantObjectDetail": ({"type": r".*", "value": r"[A-Za-z0-9+/]*=*"}, {}, []),
    "ParticipantObjectDescription": ({}, {}, [("SOPClass", 0, MANY)]),
    "SOPClass": ({"NumberOfInstances": r"\d+"}, {"UID": r"[0-9.]+"}, []),
}
WITH_TEXT = ("EventOutcomeDescription", "ParticipantObjectName", "ParticipantObjectQuery")


def complaints(document: bytes) -> list[str]:
    """Everything in it that the standard does not allow, in words."""
    root = minidom.parseString(document).documentElement
    found = list(_structure(root))
    return found if found else [*_conventions(root), *_table(root)]


def _structure(element: Element) -> Iterator[str]:
    name = element.tagName
    if name not in GRAMMAR:
        yield f"{name} is not in the schema"
        return
    must, may, order = GRAMMAR[name]
    there = dict(element.attributes.items())
    yield from (f"{name} lacks {one}" for one in must.keys() - there.keys())
    yield from (f"{name} may not have {one}" for one in there.keys() - must.keys() - may.keys())
    for one, pattern in {**may, **must}.items():
        if one in there and not re.fullmatch(pattern, there[one], re.DOTALL):
            yield f"{name} {one} is {there[one]!r}"
    children = [child.tagName for child in _elements(element)]
    allowed = [child for child, _, _ in order]
    if not set(children) <= set(allowed) or children != sorted(children, key=allowed.index):
        yield f"{name}: {children} are not {allowed}"
    for child, least, most in order:
        if not least <= children.count(child) <= most:
            yield f"{name} has {children.count(child)} {child}"
    if name not in WITH_TEXT and any(n.nodeType == n.TEXT_NODE and n.data.strip() for n in element.childNodes):
        yield f"{name} has text"
    for each in _elements(element):
        yield from _structure(each)


def _conventions(root: Element) -> Iterator[str]:
    """A.5.2."""
    moment = _elements(root)[0].getAttribute("EventDateTime")
    if dt.datetime.fromisoformat(moment).utcoffset() != dt.timedelta(0):
        yield f"the time {moment} is ambiguous"
    if sum(one.getAttribute("UserIsRequestor") == "true" for one in _named(root, "ActiveParticipant")) > 1:
        yield "more than one participant is the requestor"
    for one in _named(root, "ActiveParticipant"):
        if one.hasAttribute("NetworkAccessPointID") != one.hasAttribute("NetworkAccessPointTypeCode"):
            yield "half an access point"
        if not one.getAttribute("UserID"):
            yield "a participant without UserID"
    for one in _named(root, "ParticipantObjectIdentification"):
        kinds = [len(_named(one, f"ParticipantObject{kind}")) for kind in ("Name", "Query")]
        if sum(kinds) != 1:
            yield "an object has either a name or a query"
        if not one.getAttribute("ParticipantObjectID"):
            yield "an object without ParticipantObjectID"
        for detail in _named(one, "ParticipantObjectDetail"):
            base64.b64decode(detail.getAttribute("value"), validate=True)


def _table(root: Element) -> Iterator[str]:
    """A.5.3: what each kind of message has."""
    event = _named(root, "EventID")[0].getAttribute("csd-code")
    action = _elements(root)[0].getAttribute("EventActionCode")
    if event not in TABLES:
        if _named(root, "EventID")[0].getAttribute("codeSystemName") == "DCM":
            yield f"no table for event {event}"
        return
    actions, check = TABLES[event]
    if action not in actions:
        yield f"event {event} has action {action}"
    yield from check(root)


def _activity(root: Element) -> Iterator[str]:
    """A.5.3.1"""
    if not _types(root) & {"110120", "110121"}:
        yield "an activity neither starts nor stops"
    yield from _roles(root, {"110150": (1, 1)})
    for one in _named(root, "ActiveParticipant"):
        if not re.fullmatch(r"AETITLES=[^;]+(;[^;]+)*", one.getAttribute("AlternativeUserID")):
            yield "an application of DICOM without its AE titles"


def _log_used(root: Element) -> Iterator[str]:
    """A.5.3.2"""
    yield from _participants(root, 1, 2)
    logs = [one for one in _objects(root) if one == ("2", "13", "12")]
    names = [_text(one) for one in _named(root, "ParticipantObjectName")]
    if len(logs) != 1 or names != ["Security Audit Log"]:
        yield f"the audit log is {_objects(root)} {names}"


def _transfer(root: Element) -> Iterator[str]:
    """A.5.3.3, A.5.3.7"""
    yield from _roles(root, {"110153": (1, 1), "110152": (1, 1)})
    yield from _study_and_patient(root)


def _access(root: Element) -> Iterator[str]:
    """A.5.3.6, A.5.3.8"""
    yield from _participants(root, 1, 2)
    yield from _study_and_patient(root)


def _query(root: Element) -> Iterator[str]:
    """A.5.3.10"""
    yield from _roles(root, {"110153": (1, 1), "110152": (1, 1)})
    if [one[:2] for one in _objects(root) if one != ("1", "1", "2")] != [("2", "3")]:
        yield f"what was searched in, and for what: {_objects(root)}"
    for one in _named(root, "ParticipantObjectQuery"):
        base64.b64decode(_text(one), validate=True)
    if not _named(root, "ParticipantObjectQuery"):
        yield "a query that does not say what is searched for"


def _alert(root: Element) -> Iterator[str]:
    """A.5.3.11"""
    if not _types(root):
        yield "an alert without its kind"
    yield from _participants(root, 1, MANY)
    for one in _named(root, "ParticipantObjectIdentification"):
        if _named(one, "ParticipantObjectIDTypeCode")[0].getAttribute("csd-code") not in ("110182", "12"):
            yield "the subject of an alert is a node or a URI"
        if [d.getAttribute("type") for d in _named(one, "ParticipantObjectDetail")] != ["Alert Description"]:
            yield "an alert that says nothing"
    if any(one.getAttribute("UserIsRequestor") == "true" for one in _named(root, "ActiveParticipant")[1:]):
        yield "who performed what was alerted to is no requestor"


def _study_and_patient(root: Element) -> Iterator[str]:
    objects = _objects(root)
    if objects.count(("1", "1", "2")) != 1:
        yield f"one patient belongs there: {objects}"
    if not objects.count(("2", "3", "110180")):
        yield f"a study belongs there: {objects}"
    for one in _named(root, "ParticipantObjectDescription"):
        if not _named(one, "SOPClass"):
            yield "a study described without its SOP classes"


def _roles(root: Element, wanted: dict[str, tuple[int, int]]) -> Iterator[str]:
    roles = [one.getAttribute("csd-code") for one in _named(root, "RoleIDCode")]
    for role, (least, most) in wanted.items():
        if not least <= roles.count(role) <= most:
            yield f"role {role} is there {roles.count(role)} times"


def _participants(root: Element, least: int, most: int) -> Iterator[str]:
    count = len(_named(root, "ActiveParticipant"))
    if not least <= count <= most:
        yield f"{count} participants"


Check = Callable[[Element], Iterator[str]]
TABLES: dict[str, tuple[str, Check]] = {
    "110100": ("E", _activity),
    "110101": ("R", _log_used),
    "110102": ("E", _transfer),
    "110103": ("CRUD", _access),
    "110104": ("CRU", _transfer),
    "110105": ("D", _access),
    "110112": ("E", _query),
    "110113": ("E", _alert),
}


def _elements(element: Element) -> list[Element]:
    return [node for node in element.childNodes if isinstance(node, Element)]


def _named(element: Element, name: str) -> list[Element]:
    return list(element.getElementsByTagName(name))


def _types(root: Element) -> set[str]:
    return {one.getAttribute("csd-code") for one in _named(root, "EventTypeCode")}


def _objects(root: Element) -> list[tuple[str, str, str]]:
    return [
        (
            one.getAttribute("ParticipantObjectTypeCode"),
            one.getAttribute("ParticipantObjectTypeCodeRole"),
            _named(one, "ParticipantObjectIDTypeCode")[0].getAttribute("csd-code"),
        )
        for one in _named(root, "ParticipantObjectIdentification")
    ]


def _text(element: Element) -> str:
    return "".join(node.data for node in element.childNodes)
