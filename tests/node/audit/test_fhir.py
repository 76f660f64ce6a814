"""Events as FHIR R4 AuditEvents. What the resource must have is from the specification's table."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import pytest

from node.audit import fhir
from node.audit.chain import Sealed
from node.audit.events import Action
from node.audit.meaning import Teller
from node.audit.message import Origin

from .stored import STUDY, Trail, one_of_each
from .test_meaning import CT, FACTS

EVENT = {"resourceType", "id", "type", "subtype", "action", "recorded", "outcome", "outcomeDesc"}
EVENT |= {"agent", "source", "entity"}
AGENT = {"type", "who", "altId", "name", "requestor", "network"}
ENTITY = {"what", "type", "role", "lifecycle", "name", "query", "detail"}


def resource(event: Sealed) -> dict[str, Any]:
    (message,) = Teller("NODE", FACTS).tell_one(event)[:1]
    made = fhir.to_resource(message, Origin("NODE", "St. Elsewhere"), identity=str(event.number))
    parsed: dict[str, Any] = json.loads(json.dumps(made))
    return parsed


@pytest.mark.parametrize("event", one_of_each(), ids=lambda event: event.action)
def test_every_event_is_an_audit_event_as_r4_has_it(event: Sealed) -> None:
    made = resource(event)
    assert set(made) <= EVENT
    assert made["resourceType"] == "AuditEvent"
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", made["id"])
    assert dt.datetime.fromisoformat(made["recorded"]).tzinfo is not None
    assert made["action"] in tuple("CRUDE")
    assert made["outcome"] in ("0", "4", "8", "12")
    assert made["source"]["observer"]
    assert made["agent"]
    for agent in made["agent"]:
        assert isinstance(agent["requestor"], bool)
        assert set(agent) <= AGENT
        assert agent.get("network", {"type": "1"})["type"] in ("1", "2")
    for entity in made.get("entity", []):
        assert set(entity) <= ENTITY
        assert not {"name", "query"} <= set(entity)  # sev-1
        assert entity["what"]["identifier"]["value"]
    for coding in codings(made):
        assert re.match(r"(http|urn):", coding["system"])
    assert [] not in made.values()  # FHIR has no empty lists
    assert "" not in made.values()


def codings(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [one for item in value for one in codings(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if "code" in value else []
    return own + [one for item in value.values() for one in codings(item)]


def test_a_transfer_says_who_what_and_how_many() -> None:
    made = resource(Trail().image(Action.INSTANCE_STORED, 1))
    assert made["type"]["code"] == "110104"
    assert made["agent"][0]["network"] == {"address": "10.1.0.7", "type": "2"}
    study, patient = made["entity"]
    assert study["what"]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert study["detail"] == [{"type": f"SOPClass {CT}", "valueBase64Binary": "MQ=="}]
    assert patient["what"]["identifier"]["value"] == "P-1"


def test_a_page_says_where_the_next_one_is_and_the_last_one_says_none() -> None:
    page = fhir.bundle(
        [{"resourceType": "AuditEvent", "id": "7"}], url="http://n/fhir/AuditEvent?x=1", following="http://n/2"
    )
    assert page["link"] == [
        {"relation": "self", "url": "http://n/fhir/AuditEvent?x=1"},
        {"relation": "next", "url": "http://n/2"},
    ]
    assert page["entry"][0]["fullUrl"] == "http://n/fhir/AuditEvent/7"
    last = fhir.bundle([], url="http://n/fhir/AuditEvent", following="")
    assert "entry" not in last
    assert len(last["link"]) == 1
