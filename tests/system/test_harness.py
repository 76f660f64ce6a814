"""The programs the other system tests rest on do what those tests believe of them."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import redis
from sqlalchemy import create_engine, text

from system import dcmtk, studies
from system.dcmtk import Address, StoreScp
from system.orthanc import ROUTE_STABLE_STUDIES, Orthanc, Remote
from system.processes import alive, cpu_seconds, free_port, wait_until
from system.standin import Manners, StandIn
from system.stores import Postgres, Redis


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> studies.Study:
    return studies.ct_study(tmp_path_factory.mktemp("study"), slices=4, size=64)


def test_orthanc_stores_routes_and_forgets_nothing_when_restarted(tmp_path: Path, study: studies.Study) -> None:
    with (
        StandIn(tmp_path / "node", reports_to=Address("PACS", 1), aet="NODE") as node,
        Orthanc(tmp_path / "pacs", node=Remote("NODE", node.port)) as pacs,
    ):
        assert pacs.upload(study.files) == {study.uid}
        pacs.route(study.uid)
        assert set(node.stored) == study.instance_uids()
        pacs.stop()
        pacs.start()
        files = pacs.fetch(study.uid, tmp_path / "fetched")
        assert set(files) == study.instance_uids()
        for original in study.files:
            stored = files[str(pydicom.dcmread(original).SOPInstanceUID)]
            assert studies.data_set_digest(stored) == studies.data_set_digest(original)


def test_orthanc_routes_by_itself_when_a_study_is_stable(tmp_path: Path, study: studies.Study) -> None:
    with (
        StandIn(tmp_path / "node", reports_to=Address("PACS", 1), aet="NODE") as node,
        Orthanc(tmp_path / "pacs", node=Remote("NODE", node.port), lua=ROUTE_STABLE_STUDIES) as pacs,
    ):
        assert dcmtk.storescu(Address(pacs.aet, pacs.port), study.files).ok
        wait_until(lambda: set(node.stored) == study.instance_uids(), "Orthanc routes the study", timeout_s=30)


def test_dcmtk_sends_receives_and_counts(tmp_path: Path, study: studies.Study) -> None:
    with StoreScp(tmp_path) as scp:
        assert dcmtk.echoscu(scp.address).ok
        assert dcmtk.storescu(scp.address, study.files[:2]).ok
        assert dcmtk.dcmsend_successes(dcmtk.dcmsend(scp.address, study.files)) == 4
        assert len(scp.files()) == 4
        pid = scp.pid
        assert cpu_seconds(pid) >= 0
    assert not alive(pid)


def test_the_stand_in_refuses_and_answers_as_told(tmp_path: Path, study: studies.Study) -> None:
    manners = Manners(store_status=0xA700)
    with StandIn(tmp_path, reports_to=Address("NODE", free_port()), manners=manners) as pacs:
        assert dcmtk.dcmsend_successes(dcmtk.dcmsend(pacs.address, study.files)) == 0
        assert not pacs.stored
        manners.store_status = 0x0000
        assert dcmtk.dcmsend_successes(dcmtk.dcmsend(pacs.address, study.files)) == 4
        manners.aborts_after = 1
        assert not dcmtk.storescu(pacs.address, study.files).ok
        pacs.stop()
        manners.refuses = [pydicom.uid.CTImageStorage]
        pacs.start()
        assert not dcmtk.storescu(pacs.address, study.files).ok


def test_redis_and_postgresql_answer(redis_server: Redis, postgres: Postgres) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("key", "value")
        redis_server.flush()
        assert client.get("key") is None
    first, second = postgres.new_database(), postgres.new_database()
    assert first != second
    engine = create_engine(first)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    engine.dispose()
