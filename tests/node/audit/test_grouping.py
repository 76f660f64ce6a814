"""Which events leave together, and that nothing is lost or doubled wherever one begins again."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.audit import grouping
from node.audit.chain import Sealed
from node.audit.events import FAILED, Action
from node.audit.grouping import UNTOLD, Grouping, Told, block_of

from .stored import Trail


def numbers(told: list[Told]) -> list[list[int]]:
    return [[event.number for event in one.events] for one in told]


def test_images_of_one_association_leave_together_when_it_ends() -> None:
    trail, group = Trail(), Grouping()
    events = [
        trail.image(Action.INSTANCE_STORED, 1),
        trail.image(Action.INSTANCE_STORED, 1, association="a-2"),
        trail.image(Action.INSTANCE_STORED, 2),
        trail.image(Action.INSTANCE_CONFLICT, 3, outcome=FAILED),
        trail.add(Action.ASSOCIATION_CLOSED, detail={"association": "a-1"}),
    ]
    told = [group.take(event) for event in events]
    assert told[:4] == [[], [], [], []]
    assert numbers(told[4]) == [[1, 3], [4]]  # what failed is not told with what succeeded: A.5.2
    assert group.rest() == []
    assert numbers(group.rest(all_of_it=True)) == [[2]]


def test_objects_of_several_studies_or_patients_are_told_apart() -> None:
    trail, group = Trail(), Grouping()
    images = [trail.image(Action.INSTANCE_STORED, n) for n in (1, 2, 3)]
    images[1] = dataclasses.replace(images[1], study_instance_uid="1.2.4")
    images[2] = dataclasses.replace(images[2], patient_id="P-2")
    for event in images:
        group.take(event)
    assert numbers(group.take(trail.add(Action.ASSOCIATION_CLOSED, detail={"association": "a-1"}))) == [[1], [2], [3]]


def test_results_of_one_look_leave_together_by_peer_and_outcome() -> None:
    trail, group = Trail(), Grouping()
    trail.sent(1)
    trail.sent(2, peer="BACKUP")
    trail.sent(2)
    trail.sent(3, Action.DELIVERY_DEFERRED, outcome=FAILED)
    assert [group.take(event) for event in trail.events] == [[], [], [], []]
    assert numbers(group.rest()) == [[2], [1, 3], [4]]
    assert group.rest() == []


def test_bookkeeping_does_not_leave_and_all_else_does_at_once() -> None:
    trail, group = Trail(), Grouping()
    for action in Action:
        if action not in (*grouping._OF_ASSOCIATION, *grouping._OF_A_RUN, Action.ASSOCIATION_CLOSED):
            assert bool(group.take(trail.add(action))) == (action not in UNTOLD)


def test_what_waits_for_an_association_goes_at_the_end_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "BLOCK", 4)
    trail, group = Trail(), Grouping()
    told = [group.take(trail.image(Action.INSTANCE_STORED, n)) for n in range(6)]
    assert [numbers(one) for one in told] == [[], [], [], [[1, 2, 3, 4]], [], []]


def look(events: list[Sealed], group: Grouping) -> list[Told]:
    return [one for event in events for one in group.take(event)] + group.rest()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=40), st.data())
def test_whoever_begins_again_anywhere_tells_each_event_once(choices: list[int], data: st.DataObject) -> None:
    trail = Trail()
    for n, choice in enumerate(choices):
        if choice < 4:
            trail.image(Action.INSTANCE_STORED, n, association=f"a-{choice % 2}")
        elif choice < 6:
            trail.add(Action.ASSOCIATION_CLOSED, detail={"association": f"a-{choice % 2}"})
        else:
            trail.sent(n)
    events = trail.events
    block = grouping.BLOCK
    grouping.BLOCK = 7
    try:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
        told: list[Told] = []
        group = Grouping()
        for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
            if data.draw(st.booleans()):  # another process goes on
                group = Grouping()
                look(events[block_of(start) : start], group)
            told += look(events[start:end], group)
        told += group.rest(all_of_it=True)
    finally:
        grouping.BLOCK = block
    heard = [event.number for one in told for event in one.events]
    assert sorted(heard) == [event.number for event in events if event.action != Action.ASSOCIATION_CLOSED]
