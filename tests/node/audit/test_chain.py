import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.audit.chain import GENESIS, Sealed, seal, verify
from node.audit.events import Action, Event

TEXT = st.text(max_size=20)
EVENTS = st.lists(
    st.builds(
        Event,
        at=st.datetimes(min_value=dt.datetime(2000, 1, 1), timezones=st.just(dt.UTC)),
        action=st.sampled_from(Action),
        peer=TEXT,
        patient_id=TEXT,
        detail=st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.booleans(), st.none()), max_size=3),
    ),
    min_size=1,
    max_size=8,
)


def chained(events: list[Event]) -> list[Sealed]:
    links: list[Sealed] = []
    for number, event in enumerate(events, start=1):
        links.append(seal(event, number=number, previous=links[-1].digest if links else GENESIS))
    return links


def complaints(links: list[Sealed], head: Sealed) -> list[str]:
    return verify(links, head_number=head.number, head_digest=head.digest)


@given(EVENTS)
def test_an_untouched_chain_holds(events: list[Event]) -> None:
    links = chained(events)
    assert complaints(links, links[-1]) == []


@given(EVENTS, st.data())
def test_any_changed_field_shows(events: list[Event], data: st.DataObject) -> None:
    links = chained(events)
    place = data.draw(st.integers(0, len(links) - 1))
    name = data.draw(st.sampled_from(["at", "action", "outcome", "peer", "study_instance_uid", "patient_id", "actor"]))
    changed = dataclasses.replace(links[place], **{name: getattr(links[place], name) + "x"})
    assert complaints([*links[:place], changed, *links[place + 1 :]], links[-1])


@given(EVENTS, st.data())
def test_any_removed_event_shows(events: list[Event], data: st.DataObject) -> None:
    links = chained(events)
    place = data.draw(st.integers(0, len(links) - 1))
    assert complaints(links[:place] + links[place + 1 :], links[-1])


def test_two_exchanged_events_show() -> None:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    links = chained([Event(at, Action.JOB_STARTED), Event(at, Action.JOB_DONE)])
    assert complaints(links[::-1], links[-1])


def test_a_changed_event_sealed_anew_still_shows_at_the_next_one() -> None:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    links = chained([Event(at, Action.JOB_STARTED), Event(at, Action.JOB_DONE)])
    forged = seal(Event(at, Action.JOB_FAILED), number=1, previous=GENESIS)
    assert "event 2 does not follow from event 1" in complaints([forged, links[1]], links[-1])


@given(EVENTS)
def test_a_last_event_that_is_not_the_one_of_the_head_shows(events: list[Event]) -> None:
    links = chained(events)
    other = dataclasses.replace(links[-1], digest=GENESIS)
    assert complaints(links, other) == [
        f"event {len(links)}, the last, is not the one that the head of the trail names"
    ]


@pytest.mark.parametrize("detail", [[], None, "x", {"a": float("nan")}, {"a": b"x"}])
def test_what_could_never_have_been_sealed_is_a_change_and_no_crash(detail: Any) -> None:
    [link] = chained([Event(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Action.JOB_STARTED)])
    assert "event 1 was changed" in complaints([dataclasses.replace(link, detail=detail)], link)
