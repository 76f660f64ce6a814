"""The Compose file and the image say only what the code knows; no engine is needed to see that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from node.cli.app import app
from node.settings import Settings, Site

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
FIVE = {"receive", "infer", "deliver", "clock", "web"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf8")))


@pytest.fixture(scope="module")
def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Services of our image."""
    return {name: service for name, service in compose["services"].items() if "pacsnode" in service["image"]}


def known_commands() -> dict[str, typer.core.TyperCommand]:
    group = typer.main.get_command(app)
    return dict(group.commands)  # type: ignore[attr-defined]


def test_every_command_exists_with_its_options(ours: dict[str, dict[str, Any]]) -> None:
    commands = known_commands()
    assert {service["command"][0] for service in ours.values()} >= FIVE | {"migrate", "peers"}
    for service in ours.values():
        command = commands[service["command"][0]]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in service["command"][1:]:
            assert not word.startswith("--") or word in options, f"{word} of {service['command'][0]}"
    assert "apply" in commands["peers"].commands  # type: ignore[attr-defined]


def test_every_setting_is_one_the_node_reads(ours: dict[str, dict[str, Any]]) -> None:
    names = {name for service in ours.values() for name in service["environment"]}
    names |= set(re.findall(r"\bPACSNODE_\w+(?==)", (DEPLOY / "Dockerfile").read_text(encoding="utf8")))
    assert "PACSNODE_DATABASE_URL_FILE" in names
    for name in names:
        field = name.removeprefix("PACSNODE_").removesuffix("_FILE").lower()
        assert field in Settings.model_fields, name


def test_every_secret_is_a_file_that_make_secrets_writes(compose: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = [str(DEPLOY / "compose" / "make-secrets.sh"), str(folder)]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    written = {path.name: path.read_text(encoding="ascii") for path in folder.iterdir()}
    assert set(compose["secrets"]) == set(written)
    for name, secret in compose["secrets"].items():
        assert secret["file"].startswith("${PACSNODE_SECRETS:?"), "without the folder Compose must stop and say so"
        assert secret["file"].endswith(f"}}/{name}")
    assert written["postgres_password"] in written["database_url"]
    assert written["redis_password"] in written["redis_url"]
    assert written["postgres_password"] != written["redis_password"]
    assert subprocess.run(script, check=False, stderr=subprocess.DEVNULL).returncode == 1, (
        "a second run changes nothing"
    )
    assert {path.name: path.read_text(encoding="ascii") for path in folder.iterdir()} == written


def test_no_password_stands_in_the_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or name.endswith("_FILE")
            assert "://" not in str(value), f"{name}: URLs carry passwords; they come from files"


def test_every_service_uses_only_what_is_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        volumes = {
            volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(("$", ".", "/"))
        }
        assert volumes <= set(compose["volumes"]), name


def test_only_what_must_be_reached_is_reachable(compose: dict[str, Any]) -> None:
    published = {name for name, service in compose["services"].items() if service.get("ports")}
    assert published == {"receiver", "web"}
    outside = {name for name, service in compose["services"].items() if set(service["networks"]) - {"state"}}
    assert outside == {"receiver", "deliver", "web"}
    assert compose["networks"]["state"]["internal"] is True


def test_services_of_ours_run_without_rights_and_are_watched(ours: dict[str, dict[str, Any]]) -> None:
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == "no" or "healthcheck" in service, name


def test_the_image_runs_as_a_user_of_its_own() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf8")
    last_stage = text[text.rindex("\nFROM") :]
    assert re.search(r"^USER pacsnode$", last_stage, re.MULTILINE)
    assert 'ENTRYPOINT ["pacsnode"]' in last_stage


def test_the_example_site_file_is_one_the_node_takes() -> None:
    site = Site.read(DEPLOY / "config" / "site.toml")
    assert {peer.aet for peer in site.peers} == {"CT2", "MAINPACS", "ERVIEWER"}
    assert {route.source for route in site.routes} == {"CT2", "*"}
