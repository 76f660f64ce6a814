"""What is kept of the quality network's answer: one row per series, with every probability, on both databases."""

import datetime as dt
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from sqlalchemy import select

from models.contract import ModelIdentity, Quality, Volume
from node.archive import Archive
from node.db.session import Database
from node.db.tables import FindingRow, JobRow, QualityRow
from node.dicom.header import InstanceHeader
from node.dicom.receive import Arrival
from node.jobs.analyse import Analyst, read_one_volume
from node.jobs.body import from_body
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.quality import acquired_on, protocol_of, scanner_of
from node.jobs.receive import ReceivingDesk
from node.jobs.run import Outcome, Worker
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Models, Scorer
from node.settings import Settings

from .conftest import ct_slice

MODEL = ModelIdentity("clinreadnet-fast", "0.1.0", "cd" * 32, "simulated doses")
LEVELS = np.arange(21, dtype=np.float32) / 5


def graded(volume: Volume, _progress: object) -> Quality:
    """The first slice poor, the others good; all certainty on one level."""
    scores = np.full(len(volume.voxels), 3.0, np.float32)
    scores[0] = 1.2
    sure = np.equal.outer(np.rint(5 * scores), np.arange(21)).astype(np.float32)
    low = float(np.percentile(scores, 10))
    return Quality(LEVELS, sure, scores, np.zeros_like(scores), float(np.median(scores)), low, (0,))


def refused(_volume: Volume, _progress: object) -> Quality:
    none = np.zeros(0, np.float32)
    return Quality(LEVELS, np.zeros((0, 21), np.float32), none, none, np.nan, np.nan, (), "made for CT of the trunk")


@pytest.fixture
def analysed(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> Callable[[object], None]:
    """Three slices through reception, plan and analysis by this scorer."""

    def run(scorer: object) -> None:
        for number in (1, 2, 3):
            ds = ct_slice(number=number)
            ds.Manufacturer, ds.ManufacturerModelName, ds.StationName = "SIEMENS", "Sensation 64", "CT01"
            ds.ProtocolName, ds.ConvolutionKernel, ds.StudyDate = "Thorax", "B40f", "20260105"
            stored = np.full((16, 16), 24, np.uint16)  # air, fat, and tissue in the middle
            stored[3:13, 3:13], stored[5:11, 5:11] = 924, 1064
            ds.PixelData = stored.tobytes()
            desk.take(arrive(ds))
        [revision_id] = complete_due(database, actor="test")
        plan(database, revision_id, actor="test")
        models = Models(scorer=Scorer(MODEL, scorer))  # type: ignore[arg-type]
        analyst = Analyst(
            settings,
            database,
            archive,
            models=lambda: models,
            pipelines={"low_dose_ct": (read_one_volume, partial(low_dose_ct, least_quality=1.0))},
        )
        worker = Worker(
            settings,
            database,
            actor="worker",
            analyse=analyst.analyse,
            report=lambda _attempt: Outcome("processed", ""),
            after_report=lambda _session, _attempt: None,
        )
        assert worker.run_next()
        with database.read() as session:
            done = session.scalars(select(JobRow).where(JobRow.pipeline == "low_dose_ct")).one()
        assert (done.outcome, done.reason) == ("processed", "")

    return run


def rows(database: Database) -> list[QualityRow]:
    with database.read() as session:
        return list(session.scalars(select(QualityRow)))


def test_every_slice_is_kept_with_its_probabilities(analysed: Callable[[object], None], database: Database) -> None:
    analysed(graded)
    [row] = rows(database)
    assert (row.scanner, row.protocol) == ("SIEMENS Sensation 64 (CT01)", "Thorax, B40f")
    assert (row.acquired_on, row.model) == (dt.date(2026, 1, 5), "clinreadnet-fast 0.1.0")
    assert (row.slices, row.median, row.low, row.poor, row.reason) == (3, 3.0, 1.56, 1, "")
    assert [one["sop_instance_uid"] for one in row.detail] == ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"]
    assert [one["score"] for one in row.detail] == [1.2, 3.0, 3.0]
    assert row.levels[6] == 1.2
    assert [one["probabilities"].index(1.0) for one in row.detail] == [6, 15, 15]
    with database.read() as session:
        body = session.scalars(select(FindingRow.body)).one()
    findings = from_body(body["findings"])
    assert [score.value for score in findings.scores] == pytest.approx([3.0, 1.56, 1.2], abs=1e-6)
    assert findings.scores[0].poor == (0,)
    assert findings.quality is None


def test_a_series_that_is_not_scored_is_kept_with_the_reason(
    analysed: Callable[[object], None], database: Database
) -> None:
    analysed(refused)
    [row] = rows(database)
    assert (row.slices, row.median, row.low, row.detail) == (0, None, None, [])
    assert row.reason == "made for CT of the trunk"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"manufacturer": "GE", "manufacturer_model_name": "Revolution"}, "GE Revolution"),
        ({"manufacturer": "Canon", "manufacturer_model_name": "CANON One", "station_name": "A"}, "CANON One (A)"),
        ({"station_name": "CT2"}, "(CT2)"),
        ({}, "unnamed scanner"),
    ],
)
def test_scanners_have_one_name(given: dict[str, str], name: str) -> None:
    assert scanner_of(header(**given)) == name


def test_protocols_differ_by_kernel() -> None:
    assert protocol_of(header(protocol_name="Abdomen", kernel="B30f")) == "Abdomen, B30f"
    assert protocol_of(header(kernel="B30f")) == "B30f"
    assert protocol_of(header()) == "unnamed protocol"


@pytest.mark.parametrize(
    ("stated", "day"),
    [("20260105", (2026, 1, 5)), ("20270105", (2026, 3, 1)), ("", (2026, 3, 1)), ("20261341", (2026, 3, 1))],
)
def test_the_day_is_that_of_the_study_unless_it_cannot_be(stated: str, day: tuple[int, int, int]) -> None:
    received = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    assert acquired_on(header(study_date=stated), received) == dt.date(*day)


def header(**given: str) -> InstanceHeader:
    return InstanceHeader("1.2", "1.3", "1.4", "1.5", "1.2.840.10008.1.2.1", "CT", "P", **given)  # type: ignore[arg-type]
