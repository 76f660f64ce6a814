"""/fhir/AuditEvent: the trail for an auditor's tools, read only, to who shows the site's token.

source  HL7 FHIR R4 search, AuditEvent; IHE ITI-81 (RESTful ATNA: retrieve ATNA audit event)
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import Response

from node.audit.fhir import CONTENT_TYPE, Resource, bundle, complaint
from node.db import readiness
from node.db.session import Database
from node.db.trail import Question
from node.settings import Settings

_PATH = "/fhir/AuditEvent"
_USUAL, _MOST = 100, 1000
"""AuditEvents of a page."""
_LONGEST = 256
"""Characters of a value: no UID, title or id is longer."""
_OUTCOMES = {"0": "success", "4": "minor failure", "8": "serious failure"}
_DATE = re.compile(r"(eq|ge|gt|le|lt)?(\d{4}-\d\d(?:-\d\d)?(?:T.+)?|\d{4})")
_NAMES = {
    "patient": "patient_id",
    "patient.identifier": "patient_id",
    "entity": "entity",
    "entity.identifier": "entity",
    "agent": "agent",
    "agent.identifier": "agent",
    "subtype": "action",
    "outcome": "outcome",
}
_ITSELF = ("date", "_count", "_format", "_after", "_upto")


class Page(Protocol):
    """What was found."""

    @property
    def resources(self) -> list[Resource]: ...
    @property
    def after(self) -> int: ...
    @property
    def up_to(self) -> int: ...
    @property
    def more(self) -> bool: ...


class Ask(Protocol):
    """Search the trail, which is put on record with `actor`. Behind event `after`, up to event `up_to`."""

    def __call__(self, question: Question, *, after: int, up_to: int | None, count: int, actor: str) -> Page: ...


class _Wrong(Exception):
    """What was asked for cannot be carried out; says why."""


def add_to(app: FastAPI, settings: Settings, database: Database, ask: Ask) -> None:
    """Answer searches and reads of AuditEvents."""

    @app.get(_PATH)
    def search(request: Request) -> Response:
        return _guarded(settings, database, request, lambda actor: _search(request, ask, actor))

    @app.get(_PATH + "/{identity}")
    def read(request: Request, identity: str) -> Response:
        return _guarded(settings, database, request, lambda actor: _read(identity, ask, actor))


def _guarded(settings: Settings, database: Database, request: Request, answer: Callable[[str], Response]) -> Response:
    """What is refused has its reason, as FHIR has it."""
    if not settings.audit_token:
        return _refuse(403, "forbidden", "nobody may read the trail here: PACSNODE_AUDIT_TOKEN is not set")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), settings.audit_token.encode()):
        refusal = _refuse(401, "login", "show the site's token: Authorization: Bearer TOKEN")
        refusal.headers["WWW-Authenticate"] = 'Bearer realm="audit"'
        return refusal
    lack = readiness.lack(database)
    if lack is not None:
        return _refuse(503, "transient", f"the database {lack}")
    address = request.client.host if request.client is not None else "unknown"
    try:
        return answer(f"audit-token@{address}")
    except _Wrong as exc:
        return _refuse(400, "invalid", str(exc))


def _search(request: Request, ask: Ask, actor: str) -> Response:
    given = list(request.query_params.multi_items())
    unknown = sorted({name for name, _ in given} - _NAMES.keys() - set(_ITSELF))
    if unknown:  # to ignore it, as FHIR allows, would show events that were not asked for
        known = ", ".join([*_NAMES, *_ITSELF[:2]])
        raise _Wrong(f"{', '.join(unknown)[:_LONGEST]}: not a search parameter here, which are {known}")
    count = _whole(given, "_count", _USUAL)
    up_to = _whole(given, "_upto", -1)
    page = ask(
        _asked(given),
        after=_whole(given, "_after", 0),
        up_to=up_to if up_to >= 0 else None,
        count=min(max(count, 1), _MOST),
        actor=actor,
    )
    base = str(request.url).partition("?")[0]
    following = ""
    if page.more:
        kept = [(name, value) for name, value in given if name not in ("_after", "_upto")]
        following = f"{base}?{urlencode([*kept, ('_after', page.after), ('_upto', page.up_to)])}"
    return _answer(bundle(page.resources, url=str(request.url), following=following))


def _read(identity: str, ask: Ask, actor: str) -> Response:
    number = identity.partition(".")[0]
    if not re.fullmatch(r"\d{1,18}(\.\d{1,3})?", identity) or int(number) < 1:
        return _refuse(404, "not-found", "no such event")
    page = ask(Question(), after=int(number) - 1, up_to=int(number), count=1, actor=actor)
    found = [resource for resource in page.resources if resource["id"] == identity]
    return _answer(found[0]) if found else _refuse(404, "not-found", "no such event")


def _asked(given: Iterable[tuple[str, str]]) -> Question:
    """raises _Wrong"""
    values: dict[str, Any] = {}
    for name, value in given:
        if name == "date":
            for bound, moment in _bounds(value).items():
                narrower = max if bound == "since" else min
                values[bound] = narrower(values.get(bound, moment), moment)
        elif name in _NAMES:
            field, plain = _NAMES[name], _plain(name, value)
            if values.setdefault(field, plain) != plain:
                raise _Wrong(f"{name} is given twice")
    return Question(**values)


def _plain(name: str, value: str) -> str:
    """The value of a token search, "system|value" or "value"."""
    plain = value.rpartition("|")[2].removeprefix("urn:oid:")
    if not plain or len(plain) > _LONGEST or "\0" in plain:
        raise _Wrong(f"{name}: a value of 1 to {_LONGEST} characters is searched for")
    if name == "outcome":
        if plain not in _OUTCOMES:
            raise _Wrong(f"outcome is one of {', '.join(_OUTCOMES)}")
        return _OUTCOMES[plain]
    return plain


def _bounds(value: str) -> dict[str, str]:
    """{"since"} and {"until"}, not included, of a date search: what is not said to the second is a span of time."""
    match = _DATE.fullmatch(value.replace(" ", "+"))  # a plus that was not encoded
    try:
        if match is None:
            raise ValueError
        first, behind = _span(match[2])
    except (ValueError, OverflowError) as exc:
        raise _Wrong("date is like ge2026-01-31, lt2026-01-31T07:10:00Z; eq, ge, gt, le and lt are known") from exc
    return {
        "eq": {"since": first, "until": behind},
        "ge": {"since": first},
        "gt": {"since": behind},
        "le": {"until": behind},
        "lt": {"until": first},
    }[match[1] or "eq"]


def _span(text: str) -> tuple[str, str]:
    """The first moment of a year, month, day, minute or second, and the first behind it; UTC where no zone is named."""
    if "T" in text:
        first = dt.datetime.fromisoformat(text)
        length = dt.timedelta(microseconds=1) if "." in text else dt.timedelta(seconds=1)
        length = dt.timedelta(minutes=1) if re.fullmatch(r".*T\d\d:\d\d(Z|[+-].*)?", text) else length
        behind = first + length
    else:
        year, month, day = (int(part) for part in (text + "-0-0").split("-")[:3])
        first = dt.datetime(year, month or 1, day or 1)
        behind = first + dt.timedelta(days=1) if day else _months_later(first, 1 if month else 12)
    return _as_in_trail(first), _as_in_trail(behind)


def _months_later(first: dt.datetime, months: int) -> dt.datetime:
    ahead = first.month - 1 + months
    return first.replace(year=first.year + ahead // 12, month=ahead % 12 + 1)


def _as_in_trail(moment: dt.datetime) -> str:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return aware.astimezone(dt.UTC).isoformat(timespec="microseconds")


def _whole(given: Iterable[tuple[str, str]], name: str, usual: int) -> int:
    values = [value for key, value in given if key == name]
    if not values:
        return usual
    if len(values) > 1 or not re.fullmatch(r"[0-9]{1,18}", values[0]):
        raise _Wrong(f"{name} is a whole number")
    return int(values[0])


def _answer(resource: Any, status: int = 200) -> Response:
    text = json.dumps(resource, ensure_ascii=False).encode("utf8", "replace")
    return Response(text, status_code=status, media_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def _refuse(status: int, code: str, text: str) -> Response:
    return _answer(complaint(code, text), status)
