"""Results that have nobody to go to: said so, and sent once there is somebody."""

from collections.abc import Callable

import pytest

from node.archive import Archive
from node.db import views
from node.db.session import Database
from node.db.tables import AuditEventRow, DeliveryRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.jobs.address import address_again
from node.jobs.again import retry
from node.jobs.purge import Rules
from node.jobs.receive import ReceivingDesk
from node.jobs.site import apply_site
from node.settings import Route, Settings, Site

from .conftest import PACS
from .house import HEAD, STUDY, House, image

TO_PACS = Route.model_validate({"from": "*", "to": ["PACS"]})


@pytest.fixture
def house(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> House:
    house = House(settings, database, archive, desk, arrive)
    route(house)
    return house


def route(house: House, *routes: Route, takes: tuple[str, ...] = PACS.takes) -> None:
    site = Site.model_validate({"peer": [PACS.model_copy(update={"takes": takes})], "route": list(routes)})
    apply_site(house.database, site, actor="test")


def states(house: House) -> list[str]:
    return [row.state for row in house.rows(RevisionRow)]


def line(house: House) -> views.StudyLine:
    with house.database.read() as session:
        [found] = views.studies(session)
    return found


def unsent(house: House) -> list[str]:
    with house.database.read() as session:
        return list(views.failures(session).unsent)


def test_a_study_whose_sender_has_no_route_is_not_said_to_be_delivered(house: House) -> None:
    house.treat(image())
    assert states(house) == ["unsent"]
    assert (line(house).state, line(house).deliveries) == ("unsent", 0)
    assert line(house).reason.startswith("its results went nowhere: no route of PACS to a peer that takes any")
    assert "revision.unsent" in house.actions()
    assert "revision.delivered" not in house.actions()
    assert house.rows(RevisionRow)[0].delivered_at is None
    assert unsent(house) == [STUDY]


def test_nor_is_one_whose_destination_takes_no_kind_of_result(house: House) -> None:
    route(house, TO_PACS, takes=())
    house.treat(image())
    assert states(house) == ["unsent"]


def test_once_there_is_a_route_a_person_sends_what_went_nowhere(house: House) -> None:
    house.treat(image())
    assert address_again(house.database, STUDY, actor="ada") == (0, 1)
    assert states(house) == ["unsent"]
    route(house, TO_PACS)
    sent, left = address_again(house.database, STUDY, actor="ada")
    assert (states(house), sent, left) == (["reported"], len(house.rows(DeliveryRow)), 0)
    assert sent > 0
    [event] = house.rows(AuditEventRow, action="revision.addressed")
    assert (event.actor, event.study_instance_uid, event.detail["destinations"]) == ("ada", STUDY, ["PACS"])
    house.deliver()
    assert states(house) == ["delivered"]
    assert unsent(house) == []
    assert address_again(house.database, None, actor="ada") == (0, 0)


def test_of_a_revision_that_is_replaced_only_what_still_stands_goes_out(house: House) -> None:
    house.treat(image())
    house.treat(image(series=HEAD))
    assert states(house) == ["unsent", "unsent"]
    route(house, TO_PACS)
    address_again(house.database, None, actor="ada")
    reports = {row.sop_instance_uid: row.revision_id for row in house.rows(ResultRow, kind="sr")}
    out = {row.sop_instance_uid for row in house.rows(DeliveryRow)}
    assert {reports[uid] for uid in out & set(reports)} == {2}, "the report of revision 2 replaces that of revision 1"


def test_what_was_deleted_cannot_be_sent_and_is_not_missed(house: House) -> None:
    house.treat(image())
    house.retention.purge(STUDY, Rules(0.0, 0.0, None))
    route(house, TO_PACS)
    assert address_again(house.database, STUDY, actor="ada") == (0, 0)
    assert (states(house), unsent(house)) == (["unsent"], [])


def test_retry_names_the_way_out(house: House) -> None:
    house.treat(image())
    assert f"went nowhere, go out with: pacsnode resend {STUDY}" in (
        retry(house.database, house.settings, STUDY, actor="ada").reason
    )
