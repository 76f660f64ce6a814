"""An analysis that is switched off or on trial: what waits, what was found, and what is on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from models.contract import Analysis, Findings, Lesion, ModelError, ModelIdentity, Volume
from node.archive import Archive
from node.db import switches, timeline, views
from node.db.session import Database
from node.db.tables import AuditEventRow, DeliveryRow, FindingRow, JobRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.jobs.address import address_again
from node.jobs.again import Again, retry
from node.jobs.analyse import Analyst, read_one_volume
from node.jobs.deliver import Deliverer, resend
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.site import apply_site
from node.settings import Settings, Site
from system.processes import free_port

from .conftest import PACS, ct_slice
from .house import CHEST, HEAD, STUDY, House, words, worker_of

WHY = "Wrong marks since the kernel was changed"
OFF = f"The analysis low_dose_ct is switched off by this site: {WHY}. No result of it is shown."
ON_TRIAL = "The analysis low_dose_ct is on trial at this site: its results are not shown"
ALL = ["gsps", "sc", "sc", "seg", "sr"]
FOUND = "1 possible lesion is marked"
NETWORK = ModelIdentity("detector", "1", "ab" * 32)
SEARCH = Analysis("Lesion detection", "done", "", NETWORK, looks_for="nodules")


def finds(volume: Volume, _models: object, _progress: object) -> Findings:
    mask = np.zeros(volume.voxels.shape, bool)
    mask[0, 20:24, 20:24] = True
    nodule, lung = ("27925004", "SCT", "Nodule"), ("39607008", "SCT", "Lung")
    axis = ((20.0, 20.0), (23.0, 23.0))
    lesion = Lesion("one", nodule, lung, None, mask, 0, axis, axis, 9.0, 9.0, 300.0, 0.87, 0.5, NETWORK)
    return Findings("low_dose_ct", "1", (SEARCH,), lesions=(lesion,))


def image(number: int = 1, *, series: str = CHEST, study: str = STUDY) -> Dataset:
    """Noisy tissue in air."""
    ds = ct_slice(series, number, study=study)
    ds.Rows = ds.Columns = 64
    stored = np.full((64, 64), 24)
    stored[16:48, 16:48] = 1064 + np.random.default_rng(7).normal(0, 10, (32, 32))
    ds.PixelData = stored.astype(np.uint16).tobytes()
    return ds


class Ward(House):
    """A house whose one analysis finds a lesion in everything, and that may be switched."""

    def __init__(
        self, settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Any, port: int
    ) -> None:
        super().__init__(settings, database, archive, desk, arrive)
        self.port, self.runs = port, 0
        self.find: Callable[..., Findings] = finds
        analyst = Analyst(
            settings, database, archive, models=lambda: None, pipelines={"low_dose_ct": (read_one_volume, self._run)}
        )
        self.worker = worker_of(settings, database, archive, analyst)
        self.deliverer = Deliverer(settings, database, archive, "test")
        self.switch("on")

    def _run(self, *given: Any) -> Findings:
        self.runs += 1
        return self.find(*given)

    def switch(self, state: str, reason: str = WHY) -> dict[str, list[str]]:
        table = [] if state == "on" else [{"name": "low_dose_ct", "state": state, "reason": reason}]
        pacs = PACS.model_copy(update={"port": self.port, "takes": ("sr", "seg", "gsps", "sc", "derived")})
        route = {"from": "*", "to": ["PACS"]}
        site = Site.model_validate({"peer": [pacs], "route": [route], "analysis": table})
        return apply_site(self.database, site, actor="test")

    def plan(self) -> None:
        complete_due(self.database, actor="test")
        for row in self.rows(RevisionRow, state="complete"):
            plan(self.database, row.id, actor="test")

    def analyse(self) -> None:
        """Each analysis that waits, and no report."""
        self.plan()
        while any(job.state == "queued" and job.pipeline != "report" for job in self.rows(JobRow)):
            assert self.worker.run_next()

    def try_to_deliver(self) -> None:
        """The PACS is down."""
        for row in self.rows(RevisionRow):
            self.deliverer.deliver(row.id, "PACS")

    def on_its_way(self, revision: int) -> list[str]:
        """Kinds of what is to be sent, or was."""
        [at] = self.rows(RevisionRow, number=revision)
        kinds = {row.sop_instance_uid: row.kind for row in self.rows(ResultRow)}
        found = self.rows(DeliveryRow, revision_id=at.id)
        return sorted(kinds[row.sop_instance_uid] for row in found if row.state != "replaced")

    def said(self, revision: int) -> str:
        return words(self.document(revision))

    def retry(self, study: str = STUDY) -> Again:
        return retry(self.database, self.settings, study, actor="ada@ward")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    update = {"retry_first_s": 0.001, "retry_most_s": 0.001, "connection_timeout_s": 1.0, "breaker_failures": 100}
    return settings.model_copy(update=update)


@pytest.fixture
def house(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> Ward:
    return Ward(settings, database, archive, desk, arrive, free_port())


def test_in_service_all_of_it_is_told_and_goes_out(house: Ward) -> None:
    house.send(image())
    house.report()
    assert FOUND in house.said(1)
    assert house.on_its_way(1) == ALL


def test_switched_off_while_fifty_runs_wait_none_is_run_each_is_told_and_nothing_is_lost(house: Ward) -> None:
    studies = [f"1.2.3.{number}" for number in range(50)]
    for study in studies:
        house.send(image(series=f"{study}.1", study=study))
    house.plan()
    assert sum(job.state == "queued" for job in house.rows(JobRow, pipeline="low_dose_ct")) == 50
    assert house.switch("off")["analyses"] == ["low_dose_ct"]
    while house.worker.run_next():
        pass
    assert house.runs == 0
    assert {row.state for row in house.rows(RevisionRow)} == {"reported"}
    assert {job.outcome for job in house.rows(JobRow, pipeline="low_dose_ct")} == {"switched off"}
    assert {row.kind for row in house.rows(ResultRow)} <= {"sr", "sr-text", "sc"}
    for at in house.rows(RevisionRow):
        assert len(house.rows(DeliveryRow, revision_id=at.id)) == 1
    with house.database.read() as session:
        assert switches.to_be_done_again(session) == {"low_dose_ct": studies}
    house.deliver()
    house.switch("on")
    for study in studies[:3]:
        assert house.retry(study).queued
    house.report()
    assert house.runs == 3
    with house.database.read() as session:
        assert switches.to_be_done_again(session) == {"low_dose_ct": studies[3:]}


def test_the_reader_is_told_that_it_is_switched_off_and_why_and_later_what_it_found(house: Ward) -> None:
    house.switch("off", "Prüfung läuft, siehe Aushang")
    house.send(image())
    house.report()
    said = house.said(1)
    assert "is switched off by this site: Prüfung läuft, siehe Aushang. No result of it is shown." in said
    assert "This report says nothing about findings." in said
    for untrue in ("No analysis was suitable", "failed", "no such analysis was run", "found nothing"):
        assert untrue not in said
    house.deliver()
    assert not house.retry().queued
    assert "not in service: low_dose_ct" in house.retry().reason
    house.switch("on")
    assert [one.pipeline for one in house.retry().queued] == ["low_dose_ct", "report"]
    house.report()
    assert FOUND in house.said(2)
    assert "replaces revision 1" in house.said(2)
    assert house.on_its_way(2) == ALL
    assert "has failed" in house.retry().reason, "there is nothing left to be done"


def test_on_trial_it_runs_its_results_are_kept_and_nothing_of_it_leaves(house: Ward) -> None:
    house.switch("shadow")
    house.send(image())
    house.report()
    assert house.runs == 1
    assert house.on_its_way(1) == ["sr"]
    said = house.said(1)
    assert ON_TRIAL in said
    for leak in (WHY, FOUND, "Nodule", "detector", "possible lesion", "found nothing", "failed", "Not looked"):
        assert leak not in said
    [job] = house.rows(JobRow, pipeline="low_dose_ct")
    assert job.outcome == "on trial"
    kept = house.rows(ResultRow, job_id=job.id)
    assert {"seg", "gsps", "sc"} == {row.kind for row in kept}
    assert all(house.archive.holds(row.path) for row in kept)
    uids = {row.sop_instance_uid for row in kept}
    assert not any(uid in str(house.document(1)) for uid in uids), "the report names no object of it"
    with house.database.read() as session:
        line = timeline.timeline(session, STUDY)
        [row] = views.studies(session)
    assert line is not None
    [analysis] = [one for one in line.revisions[0].jobs if one.kept]
    assert analysis.kept is not None
    assert analysis.kept["findings"]["lesions"][0]["score"] == 0.87
    assert {one.kind for one in line.revisions[0].results if one.withheld} == {"seg", "gsps", "sc"}
    assert ON_TRIAL in row.reason
    house.deliver()
    assert {row.sop_instance_uid for row in house.rows(DeliveryRow)} & uids == set()


@pytest.mark.parametrize("what", ["nothing", "broken", "not eligible"])
def test_whatever_a_trial_came_to_the_reader_reads_the_same(house: Ward, what: str) -> None:
    def broken(*_given: object) -> Findings:
        raise ModelError("torn")

    house.switch("shadow")
    house.send(image())
    house.report()
    house.find = broken if what == "broken" else lambda *_given: Findings("low_dose_ct", "1", (SEARCH,))
    other = image(series="1.2.4.1", study="1.2.4")
    if what == "not eligible":
        other.RescaleSlope = 0
    house.send(other)
    while house.report() or any(row.state == "planned" for row in house.rows(RevisionRow)):
        pass
    documents = [words(house.document_of(row)) for row in house.rows(RevisionRow)]
    assert documents[0] == documents[1]
    assert house.rows(FindingRow)


def test_what_broke_on_trial_is_tried_again_on_trial(house: Ward) -> None:
    def broken(*_given: object) -> Findings:
        raise ModelError("torn")

    house.switch("shadow")
    house.find = broken
    house.send(image())
    while not any(row.state == "reported" for row in house.rows(RevisionRow)):
        house.report()
    house.find = finds
    assert [one.pipeline for one in house.retry().queued] == ["low_dose_ct", "report"]
    house.report()
    assert house.rows(FindingRow)
    assert ON_TRIAL in house.said(2)
    assert house.on_its_way(2) == ["sr"]


@pytest.mark.parametrize(("state", "sentence"), [("off", OFF), ("shadow", ON_TRIAL)])
def test_switched_between_run_and_report_the_report_goes_by_what_stands_when_it_is_written(
    house: Ward, state: str, sentence: str
) -> None:
    house.send(image())
    house.analyse()
    house.switch(state)
    house.report()
    assert sentence in house.said(1)
    assert "lesion" not in house.said(1)
    assert house.on_its_way(1) == ["sr"]
    assert "job.withheld" in house.actions()
    house.switch("on")
    assert house.retry().queued
    house.report()
    assert house.runs == 2, "what was withheld is not published by another revision: it is done again"
    assert FOUND in house.said(2)


def test_a_trial_that_ended_before_the_report_was_written_is_a_result_like_any(house: Ward) -> None:
    house.switch("shadow")
    house.send(image())
    house.analyse()
    house.switch("on")
    house.report()
    assert FOUND in house.said(1)
    assert house.on_its_way(1) == ALL


@pytest.mark.parametrize(("state", "sentence"), [("off", OFF), ("shadow", ON_TRIAL)])
def test_what_waits_for_a_pacs_that_is_down_is_taken_back_and_another_report_goes_instead(
    house: Ward, state: str, sentence: str
) -> None:
    house.send(image())
    house.report()
    house.try_to_deliver()
    assert {row.state for row in house.rows(DeliveryRow)} == {"waiting"}
    house.switch(state)
    house.try_to_deliver()
    assert {row.state for row in house.rows(DeliveryRow)} == {"replaced"}
    assert [row.state for row in house.rows(RevisionRow)] == ["recalled", "complete"]
    house.report()
    assert house.runs == 1
    assert house.on_its_way(1) == []
    assert house.on_its_way(2) == ["sr"]
    assert sentence in house.said(2)
    assert "lesion" not in house.said(2)
    assert "PredecessorDocumentsSequence" not in house.document(2), "nobody has the report of revision 1"
    house.deliver()
    assert [row.state for row in house.rows(RevisionRow)] == ["recalled", "delivered"]
    [event] = [row for row in house.rows(AuditEventRow) if row.action == "delivery.recalled"]
    assert (event.peer, event.detail["objects"], event.study_instance_uid) == ("PACS", len(ALL), STUDY)
    house.switch("on")
    assert house.retry().queued
    house.report()
    assert (FOUND in house.said(3), house.on_its_way(3)) == (True, ALL)


def test_what_has_arrived_is_not_called_back_and_the_report_that_follows_replaces_it(house: Ward) -> None:
    house.send(image())
    house.report()
    report = house.document(1).SOPInstanceUID
    with house.database.write() as session:
        row = session.scalars(select(DeliveryRow).where(DeliveryRow.sop_instance_uid == report)).one()
        row.state, row.sent_at, row.committed_at = "committed", now(), now()
    house.switch("off")
    house.try_to_deliver()
    house.report()
    assert (house.on_its_way(1), house.on_its_way(2)) == (["sr"], ["sr"])
    assert "This report replaces revision 1" in house.said(2)
    [before] = house.document(2).PredecessorDocumentsSequence
    assert report in str(before)


def test_a_study_that_is_delivered_is_left_alone(house: Ward) -> None:
    house.treat(image())
    before = [(row.id, row.state) for row in house.rows(DeliveryRow)]
    house.switch("off")
    house.try_to_deliver()
    house.report()
    assert [(row.id, row.state) for row in house.rows(DeliveryRow)] == before
    assert len(house.rows(RevisionRow)) == 1


def test_late_images_are_told_by_what_stands_then(house: Ward) -> None:
    house.switch("shadow")
    house.treat(image())
    house.treat(image(series=HEAD))
    assert house.runs == 2, "the first series has not changed, and was looked at"
    assert house.decisions(2)[CHEST] == "unchanged since revision 1"
    house.switch("on")
    house.treat(image(2, series=HEAD))
    assert house.runs == 4, "what was kept on trial is done again before it is told"
    assert "Possible lesions are marked in 2 series" in house.said(3)


def test_findings_of_an_earlier_revision_are_left_out_once_it_is_off(house: Ward) -> None:
    house.treat(image())
    house.switch("off")
    house.treat(image(series=HEAD))
    assert house.runs == 1
    said = house.said(2)
    assert said.count(OFF) == 3, "first, and of both series"
    assert "lesion" not in said
    assert house.on_its_way(2) == ["sr"]


def test_a_dead_letter_of_what_is_not_shown_is_neither_a_fault_nor_sent_again(house: Ward) -> None:
    house.send(image())
    house.report()
    house.change(DeliveryRow, state="dead", reason="refused")
    house.change(RevisionRow, state="incomplete")
    house.switch("shadow")
    house.treat(image(series=HEAD))
    with house.database.read() as session:
        assert views.failures(session).dead_letters == {}
    resend(house.database, study_instance_uid=STUDY, peer_aet=None, actor="test")
    house.try_to_deliver()
    assert house.on_its_way(1) == ALL[:-1]
    assert {row.state for row in house.rows(DeliveryRow)} == {"dead", "replaced", "committed"}


def test_what_went_nowhere_goes_out_without_what_is_on_trial(house: Ward) -> None:
    house.switch("shadow")
    no_route = Site.model_validate(
        {"peer": [PACS], "analysis": [{"name": "low_dose_ct", "state": "shadow", "reason": WHY}]}
    )
    apply_site(house.database, no_route, actor="test")
    house.send(image())
    house.report()
    assert [row.state for row in house.rows(RevisionRow)] == ["unsent"]
    house.switch("on")
    assert address_again(house.database, STUDY, actor="test") == (1, 0)
    assert house.on_its_way(1) == ["sr"]
    assert ON_TRIAL in house.said(1)
