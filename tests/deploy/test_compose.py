"""The Compose file and the image say only what the code knows; no engine is needed to see that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from node.cli.app import app
from node.settings import Settings, Site

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
README = (DEPLOY / "README.md").read_text(encoding="utf8")
FIVE = {"receive", "infer", "deliver", "clock", "web"}


class _WithReset(yaml.SafeLoader):
    """Knows Compose's `!reset`: what stands there replaces, and is not merged."""


def _reset(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any] | None:
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else None


_WithReset.add_constructor("!reset", _reset)


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
        named = [volume for volume in service.get("volumes", []) if isinstance(volume, str)]
        assert {volume.split(":")[0] for volume in named} <= set(compose["volumes"]), name


def test_only_what_must_be_reached_is_reachable(compose: dict[str, Any]) -> None:
    published = {name for name, service in compose["services"].items() if service.get("ports")}
    assert published == {"receiver", "web"}
    outside = {name for name, service in compose["services"].items() if set(service["networks"]) - {"state"}}
    assert outside == {"receiver", "deliver", "web"}
    assert compose["networks"]["state"]["internal"] is True


def test_the_page_asks_the_receiver_where_it_is(compose: dict[str, Any]) -> None:
    services = compose["services"]
    web, receiver = services["web"], services["receiver"]
    host = web["environment"]["PACSNODE_RECEIVER_HOST"]
    assert host == "receiver", "the loopback of a container is its own: /readyz would never be 200"
    assert set(web["networks"]) & set(receiver["networks"])
    assert web["environment"]["PACSNODE_PORT"] == receiver["environment"]["PACSNODE_PORT"]


def test_what_the_readme_runs_exists_and_reaches_the_peers(compose: dict[str, Any]) -> None:
    runs = re.findall(r"compose\s+(?:run --rm|exec)\s+([\w-]+)(?: (?:pacsnode )?([a-z]\w*))?", README)
    assert ("deliver", "check") in runs
    for name, command in runs:
        service = compose["services"][name]
        assert not command or command in known_commands()
        if command == "check":
            ways_out = [n for n in service["networks"] if not (compose["networks"][n] or {}).get("internal")]
            assert ways_out, f"{name} reaches no peer, so its check blames all of them"


def test_postgres_is_healthy_only_once_it_has_set_itself_up(compose: dict[str, Any]) -> None:
    # while it does, the image runs a server without TCP: the socket would say "ready", then migrate meets a restart
    assert "--host=127.0.0.1" in compose["services"]["postgres"]["healthcheck"]["test"]


def test_workers_may_end_what_they_analyse(compose: dict[str, Any]) -> None:
    for name in ("worker-cpu", "worker-gpu"):
        minutes = re.fullmatch(r"(\d+)m", compose["services"][name]["stop_grace_period"])
        assert minutes, name
        assert int(minutes[1]) >= 10, "a CT of 300 slices takes minutes on a CPU"


def test_logs_do_not_fill_the_disk(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name


def test_a_missing_site_file_is_not_made_a_folder(compose: dict[str, Any]) -> None:
    mounts = [volume for volume in compose["services"]["peers"]["volumes"] if isinstance(volume, dict)]
    assert [mount["target"] for mount in mounts] == [compose["services"]["peers"]["command"][-1]]
    assert mounts[0]["read_only"] is True
    assert mounts[0]["bind"]["create_host_path"] is False


def test_the_receiver_in_the_hosts_network_still_finds_and_is_found(compose: dict[str, Any], tmp_path: Path) -> None:
    changed = yaml.load((COMPOSE.parent / "host-network.yaml").read_text(encoding="utf8"), _WithReset)
    services = changed["services"]
    assert set(services) <= set(compose["services"])
    receiver = services["receiver"]
    assert receiver["network_mode"] == "host"
    assert receiver["networks"] == receiver["ports"] == [], "Compose refuses both beside the host's network"
    secrets = tmp_path / "secrets"
    subprocess.run([COMPOSE.parent / "make-secrets.sh", secrets], check=True, stdout=subprocess.DEVNULL)
    url = urlsplit((secrets / "database_url").read_text(encoding="ascii"))
    assert receiver["extra_hosts"] == [f"{url.hostname}:127.0.0.1"]
    assert services["postgres"]["ports"] == [f"127.0.0.1:{url.port}:{url.port}"], "on the loopback only"
    found_at = compose["services"]["web"]["environment"]["PACSNODE_RECEIVER_HOST"]
    assert services["web"]["extra_hosts"] == [f"{found_at}:host-gateway"]
    port = receiver["environment"]["PACSNODE_PORT"]
    assert services["web"]["environment"]["PACSNODE_PORT"] == port
    assert port in receiver["healthcheck"]["test"][-1]
    internal = {name for name, network in compose["networks"].items() if (network or {}).get("internal")}
    assert set(services["postgres"]["networks"]) - internal, "a port of an internal network is not published"
    assert set(services["postgres"]["networks"]) <= set(compose["networks"]) | set(changed["networks"])


def test_any_setting_can_be_given_in_a_file_that_need_not_be_there(ours: dict[str, dict[str, Any]]) -> None:
    for name, service in ours.items():
        assert service["env_file"] == [{"path": "settings.env", "required": False}], name
    assert "`settings.env`" in README


def test_tls_reaches_who_listens_and_who_sends_and_its_files_may_be_renewed(compose: dict[str, Any]) -> None:
    changed = yaml.safe_load((COMPOSE.parent / "tls.yaml").read_text(encoding="utf8"))
    receiver, deliver = changed["services"].pop("receiver"), changed["services"].pop("deliver")
    assert changed["services"] == {}
    assert {"receiver", "deliver"} <= set(compose["services"])
    paths = {f"PACSNODE_TLS_{name}" for name in ("CERTIFICATE", "KEY", "AUTHORITIES")}
    for service in (receiver, deliver):
        [mount] = service["volumes"]
        assert (mount["type"], mount["read_only"], mount["bind"]) == ("bind", True, {"create_host_path": False})
        assert {Path(service["environment"][name]).parent for name in paths} == {Path(mount["target"])}
    assert "PACSNODE_TLS_PORT" not in deliver["environment"]
    assert receiver["ports"][0].endswith(f":{receiver['environment']['PACSNODE_TLS_PORT']}")
    for name in {**receiver["environment"], **deliver["environment"]}:
        assert name.removeprefix("PACSNODE_").lower() in Settings.model_fields
    assert "tls.yaml" in README


def test_with_an_audit_repository_the_clock_has_a_way_to_it_and_check_its_files(compose: dict[str, Any]) -> None:
    changed = yaml.safe_load((COMPOSE.parent / "audit.yaml").read_text(encoding="utf8"))
    clock, deliver = changed["services"].pop("clock"), changed["services"].pop("deliver")
    assert changed["services"] == {}
    assert {"clock", "deliver"} <= set(compose["services"])
    assert "networks" not in compose["services"]["clock"] or compose["services"]["clock"]["networks"] == ["state"]
    assert clock["networks"] == list(changed["networks"])
    assert not changed["networks"]["repository"].get("internal")
    for service in (clock, deliver):
        [mount] = service["volumes"]
        assert (mount["type"], mount["read_only"], mount["bind"]) == ("bind", True, {"create_host_path": False})
        paths = {f"PACSNODE_AUDIT_{name}" for name in ("CERTIFICATE", "KEY", "AUTHORITIES")}
        assert {Path(service["environment"][name]).parent for name in paths} == {Path(mount["target"])}
        for name in service["environment"]:
            assert name.removeprefix("PACSNODE_").lower() in Settings.model_fields
    assert "audit.yaml" in README


def test_services_of_ours_run_without_rights_and_are_watched(ours: dict[str, dict[str, Any]]) -> None:
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == "no" or "healthcheck" in service, name


def test_the_image_runs_as_a_user_of_its_own() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf8")
    last_stage = text[text.rindex("\nFROM") :]
    assert re.search(r"^USER pacsnode$", last_stage, re.MULTILINE)
    assert "groupadd --gid 10001 " in last_stage, "the numbers own files that several hosts share: none by chance"
    assert "useradd --uid 10001 --gid 10001 " in last_stage
    assert 'ENTRYPOINT ["pacsnode"]' in last_stage


def test_the_example_site_file_is_one_the_node_takes() -> None:
    site = Site.read(DEPLOY / "config" / "site.toml")
    assert {peer.aet for peer in site.peers} == {"CT2", "MAINPACS", "ERVIEWER"}
    assert {route.source for route in site.routes} == {"CT2", "*"}
