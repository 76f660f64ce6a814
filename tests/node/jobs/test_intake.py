import datetime as dt
from collections.abc import Callable

from sqlalchemy import select, update

from node.db.session import Database
from node.db.tables import RevisionRow
from node.dicom.receive import Arrival
from node.jobs.intake import complete_due
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.site import apply_site
from node.settings import Completion, Site

from .conftest import PACS, ct_slice


def rule(database: Database, **values: object) -> None:
    peer = PACS.model_copy(update={"completion": Completion.model_validate(values)})
    apply_site(database, Site.model_validate({"peer": [peer]}), actor="test")


def revisions(database: Database) -> list[RevisionRow]:
    with database.read() as session:
        return list(session.scalars(select(RevisionRow).order_by(RevisionRow.number)))


def test_a_study_is_complete_once_it_was_quiet(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    rule(database, quiet_s=3600)
    desk.take(arrive(ct_slice()))
    assert complete_due(database, actor="test") == []
    with database.write() as session:
        session.execute(update(RevisionRow).values(last_image_at=now() - dt.timedelta(hours=2)))
    assert complete_due(database, actor="test") == [revisions(database)[0].id]
    assert revisions(database)[0].completed_because == "no new image for 3600 s"


def test_a_study_that_never_rests_is_closed_at_the_deadline(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    rule(database, quiet_s=3600, deadline_s=7200)
    desk.take(arrive(ct_slice()))
    with database.write() as session:
        session.execute(update(RevisionRow).values(first_image_at=now() - dt.timedelta(hours=3)))
    complete_due(database, actor="test")
    assert revisions(database)[0].completed_because.startswith("deadline")


def test_a_content_rule_closes_at_once(database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]) -> None:
    rule(database, quiet_s=3600, when_images=2)
    desk.take(arrive(ct_slice(number=1)))
    assert complete_due(database, actor="test") == []
    desk.take(arrive(ct_slice(number=2)))
    assert len(complete_due(database, actor="test")) == 1


def test_a_late_image_makes_the_next_revision(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    rule(database, quiet_s=0)
    desk.take(arrive(ct_slice(number=1)))
    complete_due(database, actor="test")
    desk.take(arrive(ct_slice(number=2)))
    assert [(row.number, row.state, row.images) for row in revisions(database)] == [
        (1, "complete", 1),
        (2, "receiving", 1),
    ]


def test_the_next_revision_waits_for_quiet_although_the_content_rule_is_met(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    rule(database, quiet_s=3600, when_images=1)
    desk.take(arrive(ct_slice(number=1)))
    complete_due(database, actor="test")
    desk.take(arrive(ct_slice(number=2)))
    assert complete_due(database, actor="test") == []
