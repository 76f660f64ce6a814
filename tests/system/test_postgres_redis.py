"""The same node on PostgreSQL and a Redis server: only URLs differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from system import dcmtk, studies
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.orthanc import ROUTE_STABLE_STUDIES, Orthanc, Remote
from system.processes import free_port
from system.stores import Postgres, Redis

NODE_ROWS = {"study", "revision", "instance", "job", "result", "delivery", "audit_event"}


@dataclass(frozen=True)
class House:
    pacs: Orthanc
    node: Node
    ledger: Ledger


def urls(postgres: Postgres, redis_server: Redis) -> dict[str, str]:
    return {"PACSNODE_DATABASE_URL": postgres.new_database(), "PACSNODE_REDIS_URL": redis_server.url}


@pytest.fixture(scope="module")
def house(postgres: Postgres, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Orthanc routes each stable study by itself, so results come back to the node, too."""
    folder = tmp_path_factory.mktemp("pg")
    port = free_port()
    with Orthanc(folder / "pacs", node=Remote("NODE", port), lua=ROUTE_STABLE_STUDIES) as pacs:
        peers = [PeerEntry("PACS", port=pacs.port, quiet_s=2), PeerEntry("MODALITY", quiet_s=2)]
        site = site_text(peers, {"*": ["PACS"]})
        with Node(folder / "node", site=site, port=port, env=urls(postgres, redis_server)) as node:
            yield House(pacs, node, Ledger(node))


def test_a_study_routed_by_orthanc_itself_comes_back_with_results(house: House, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path / "study", name="pg", slices=8)
    assert dcmtk.storescu(house.pacs.address, study.files).ok
    revision = house.ledger.wait_ended(study.uid)
    assert revision.state == "delivered", house.ledger.summary(study.uid)
    delivered = {row.sop_instance_uid for row in house.ledger.deliveries(study.uid)}
    assert set(house.pacs.fetch(study.uid, tmp_path / "back")) == study.instance_uids() | delivered
    assert house.node.pid("redis") is None
    assert not (house.node.home / "node.sqlite").exists()


def test_the_loop_of_automatic_routing_ends(house: House, tmp_path: Path) -> None:
    """Orthanc routes the study again when the results have come; the node knows its own and begins nothing anew."""
    study = studies.ct_study(tmp_path / "study", name="pg-loop", slices=8)
    assert dcmtk.storescu(house.pacs.address, study.files).ok
    house.ledger.wait_ended(study.uid)
    delivered = {row.sop_instance_uid for row in house.ledger.deliveries(study.uid)}
    house.ledger.wait_for_images(study.uid, 8 + len(delivered))
    assert house.ledger.audit_actions(study.uid)["instance.own_result"] == len(delivered)
    assert [revision.number for revision in house.ledger.revisions(study.uid)] == [1]
    assert {row.sop_instance_uid for row in house.ledger.deliveries(study.uid)} == delivered


def test_redis_may_be_flushed_and_restarted_in_between(house: House, redis_server: Redis, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path / "study", name="pg-flush", slices=8)
    assert dcmtk.storescu(house.node.address, study.files).ok
    redis_server.flush()
    redis_server.stop()
    house.ledger.wait_for_images(study.uid, 8)
    redis_server.start()
    revision = house.ledger.wait_ended(study.uid)
    assert revision.state == "delivered", house.ledger.summary(study.uid)


def test_the_trail_holds_and_the_node_can_be_asked(house: House) -> None:
    assert house.node.command("audit", "verify").ok
    assert house.node.json("studies")
    assert house.node.web("/readyz").status_code == 200


def test_migrations_go_up_down_and_up_again(postgres: Postgres, redis_server: Redis, tmp_path: Path) -> None:
    node = Node(tmp_path, site=site_text([PeerEntry("MODALITY")], {}), env=urls(postgres, redis_server))
    engine = create_engine(node.env["PACSNODE_DATABASE_URL"])
    try:
        assert node.command("migrate").ok
        assert set(inspect(engine).get_table_names()) >= NODE_ROWS
        assert node.command("migrate", "--down", "base").ok
        assert not NODE_ROWS & set(inspect(engine).get_table_names())
        assert node.command("migrate", "--show").status == 1
        assert node.command("migrate").ok
        assert node.command("migrate", "--show").ok
    finally:
        engine.dispose()


def test_a_process_says_what_is_missing_when_the_database_was_not_migrated(
    postgres: Postgres, redis_server: Redis, tmp_path: Path
) -> None:
    node = Node(tmp_path, site=site_text([PeerEntry("MODALITY")], {}), env=urls(postgres, redis_server))
    answer = node.command("receive", "--port", str(node.port))
    assert not answer.ok
    assert "pacsnode migrate" in answer.text
