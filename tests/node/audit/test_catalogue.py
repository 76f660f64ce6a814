"""What the catalogue says is sent, against what the grouping and the teller make of one event of each kind."""

from __future__ import annotations

from node.audit.catalogue import catalogue
from node.audit.codes import OWN_SYSTEM
from node.audit.events import Action
from node.audit.grouping import Grouping
from node.audit.meaning import Facts, Teller

from .stored import STUDY, one_of_each

CT = "1.2.840.10008.5.1.4.1.1.2"
FACTS = Facts(made={7: {CT: 1}}, on_their_way={(STUDY, 1, "PACS"): {CT: 1}, (STUDY, 1, "BACKUP"): {CT: 1}})


def test_the_messages_of_the_catalogue_are_those_that_leave() -> None:
    grouping, teller = Grouping(), Teller("NODE", FACTS)
    told = [one for event in one_of_each() for one in grouping.take(event)] + grouping.rest(all_of_it=True)
    left = {
        (message.event.value, str(message.action), one.events[0].action)
        for one in told
        for message in teller.tell(one)
        if one.events[0].study_instance_uid or message.event.meaning != "DICOM Instances Transferred"
    }
    entries, _ = catalogue()
    said = {(entry.code, entry.action, of) for entry in entries for of in entry.of}
    both = {("110104", "C", str(action)) for action in (Action.INSTANCE_REFUSED, Action.INSTANCE_LOST)}
    assert left <= said
    assert said - left == both, "these are alerts where the study is not known, as in the events that were told here"


def test_every_event_is_told_or_said_not_to_be() -> None:
    entries, untold = catalogue()
    told = {of for entry in entries for of in entry.of}
    assert told | set(untold) == {str(action) for action in Action}
    assert not told & set(untold)


def test_no_message_is_sent_that_ps3_15_lacks() -> None:
    entries, _ = catalogue()
    assert {entry.code[:3] for entry in entries} == {"110"}
    assert not [entry for entry in entries if OWN_SYSTEM in entry.kind]
