from hypothesis import given
from hypothesis import strategies as st

from node.db.lifecycle import MOVES, DeliveryState, JobState, RevisionState, before, may_become

KINDS = (RevisionState, JobState, DeliveryState)


def test_every_state_of_every_kind_stands_in_the_table() -> None:
    for kind in KINDS:
        assert set(MOVES[kind]) == set(kind)


def test_every_state_can_be_reached_from_the_first_one() -> None:
    for kind, first in zip(KINDS, (RevisionState.RECEIVING, JobState.QUEUED, DeliveryState.WAITING), strict=True):
        reached, fresh = {first}, {first}
        while fresh:
            fresh = {after for state in fresh for after in MOVES[kind][state]} - reached
            reached |= fresh
        assert reached == set(kind)


@given(st.data())
def test_a_revision_never_runs_backwards(data: st.DataObject) -> None:
    order = [
        RevisionState.RECEIVING,
        RevisionState.COMPLETE,
        RevisionState.PLANNED,
        RevisionState.REPORTED,
        RevisionState.UNSENT,
        RevisionState.INCOMPLETE,
        RevisionState.DELIVERED,
        RevisionState.RECALLED,
    ]
    state = RevisionState.RECEIVING
    walked = [state]
    while MOVES[RevisionState][state] and state != RevisionState.UNSENT:  # from there a person must ask
        state = data.draw(st.sampled_from(sorted(MOVES[RevisionState][state])))
        walked.append(state)
    assert walked == sorted(walked, key=order.index)
    assert walked[-1] in (RevisionState.DELIVERED, RevisionState.UNSENT, RevisionState.RECALLED)


def test_what_is_finished_stays_finished() -> None:
    for state in (JobState.DONE, DeliveryState.COMMITTED, DeliveryState.REPLACED):
        assert not MOVES[type(state)][state]


def test_what_failed_may_only_be_begun_anew() -> None:
    assert MOVES[JobState][JobState.FAILED] == {JobState.QUEUED}
    assert MOVES[DeliveryState][DeliveryState.DEAD] == {DeliveryState.WAITING}
    assert MOVES[RevisionState][RevisionState.UNSENT] == {RevisionState.REPORTED}


def test_before_is_the_inverse_of_may_become() -> None:
    for kind in KINDS:
        for after in kind:
            assert set(before(after)) == {state for state in kind if may_become(state, after)}
