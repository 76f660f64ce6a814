"""The whole embedded node as processes: started, disturbed, stopped. About twenty seconds of real starting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli.app import app

PARTS = ("redis", "receive", "infer", "deliver", "clock", "web")
PATIENCE_S = 90


class Up:
    """`pacsnode up` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.log = folder / "up.txt"
        site = folder / "site.toml"
        site.write_text('[[peer]]\naet = "CT1"\nhost = "127.0.0.1"\n', encoding="utf8")
        where = ["--port", "0", "--web-port", "0", "--host", "127.0.0.1", "--site", str(site), "--grace", "10"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACSNODE_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node", "--home", str(self.home), "up", "--aet", "CHEST", *where],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "OMP_NUM_THREADS": "1"},
            )

    def text(self) -> str:
        return self.log.read_text(encoding="utf8")

    def until(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def until_ready(self) -> None:
        self.until(lambda: self.text().startswith("ready ") or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()

    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text(encoding="ascii")) for path in (self.home / "run").glob("*.pid")}

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["--home", str(self.home), *arguments])

    def web(self, path: str) -> tuple[int, str]:
        port = json.loads((self.home / "run" / "settings.json").read_text(encoding="utf8"))["web_port"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up"))
    try:
        up.until_ready()
        yield up
    finally:
        up.end()


def test_one_ready_line_says_where_everything_is(node: Up) -> None:
    assert [line.split()[:2] for line in node.text().splitlines()] == [["ready", "aet=CHEST"]]
    pids = node.pids()
    assert set(pids) == set(PARTS)
    assert all(alive(pid) for pid in pids.values())
    assert node.web("/readyz")[0] == 200


def test_other_commands_need_only_the_home(node: Up) -> None:
    checked = node.run("check", "--no-models")
    assert (checked.exit_code, "`up` runs as process" in checked.stdout) == (0, True)
    assert f"ok    clock: runs as process {node.pids()['clock']}" in checked.stdout
    assert node.web("/workz")[0] == 200
    assert "aet CHEST" in node.run("audit", "--action", "node").stdout


def test_a_second_node_on_the_same_home_is_refused(node: Up) -> None:
    second = node.run("up")
    assert second.exit_code == 2
    assert "runs there already" in second.stderr


@pytest.mark.parametrize("part", ["receive", "redis"])
def test_what_is_killed_comes_back_and_is_on_record(node: Up, part: str) -> None:
    before = node.pids()[part]
    os.kill(before, signal.SIGKILL)
    node.until(lambda: node.pids().get(part, before) != before)
    node.until(lambda: node.web("/readyz")[0] == 200)
    assert f"process {part}, exit_code -9" in node.run("audit", "--action", "node").stdout


def test_sigterm_ends_everything_with_exit_code_0(node: Up) -> None:
    pids = node.pids()
    node.end()
    assert node.process.returncode == 0
    assert not [name for name, pid in pids.items() if alive(pid)]
    assert sorted(path.name for path in (node.home / "run").iterdir()) == ["settings.json", "up.lock"]
    assert "node.stopped" in node.run("audit", "--action", "node", "--limit", "1").stdout


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    up = Up(tmp_path)
    try:
        up.until_ready()
        pids = up.pids()
    finally:
        up.process.kill()
        up.process.wait()
    assert set(pids) == set(PARTS)
    up.until(lambda: not any(alive(pid) for pid in pids.values()))
