"""`pacsnode up`: the embedded node, from an empty folder to the line "ready", and back to nothing left running."""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from node import wiring
from node.audit.events import FAILED_FOR_NOW, Action
from node.cli import embedded
from node.cli import home as homes
from node.cli.children import Child, Log
from node.cli.supervisor import LOGGER, NotStarted, Supervisor
from node.cli.words import remark, say
from node.db import migrate
from node.errors import Transient
from node.jobs.record import now, process_name, record
from node.jobs.site import apply_site
from node.settings import VERSION, Settings, Site

PROCESSES = ("receive", "infer", "deliver", "clock", "web")
STOP_ORDER = (("receive",), ("clock", "infer", "deliver", "web"), ("redis",))
_BROKER_S = 20.0


def run(settings: Settings, *, site: Path | None, grace_s: float) -> None:
    """Blocks until SIGTERM or SIGINT. raises ConfigurationError where nothing can start"""
    peers = Site.read(site) if site is not None else None
    homes.prepare(settings)
    with homes.sole_owner(settings):
        settings = _settle_ports(settings)
        homes.remember(settings)
        _log_to(homes.log_dir(settings) / "up.log")
        _Up(settings, grace_s).run(peers)


def _settle_ports(settings: Settings) -> Settings:
    ports = {
        name: homes.free_port(host)
        for name, host in (("port", settings.host), ("web_port", settings.web_host))
        if getattr(settings, name) == 0
    }
    return settings.model_copy(update=ports)


def _log_to(path: Path) -> None:
    logging.Formatter.converter = time.gmtime
    handler = Log(path)
    handler.setFormatter(logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


@dataclass(frozen=True)
class Death:
    """Of a process that is started again; not in the trail yet."""

    name: str
    code: int
    at: dt.datetime


class _Up:
    def __init__(self, settings: Settings, grace_s: float) -> None:
        self._settings = settings
        self._actor = process_name("up")
        self._deaths: list[Death] = []
        self._supervisor = Supervisor(_environment(settings), self._on_death, self._on_return, grace_s)
        self._node = wiring.build(settings)

    def run(self, site: Site | None) -> None:
        supervisor = self._supervisor
        supervisor.listen()
        try:
            self._start_broker()
            migrate.upgrade(self._node.database)
            if site is not None:
                apply_site(self._node.database, site, actor=self._actor)
            self._record(Action.NODE_STARTED, aet=self._settings.aet, port=self._settings.port, version=VERSION)
            children = [self._child(name) for name in PROCESSES]
            supervisor.start(children)
            if supervisor.until_ready(children, lambda child: LOGGER.info("%s ready", child.name)):
                say(self._ready_line())
                supervisor.watch()
        finally:
            LOGGER.info("stopping")
            supervisor.stop(STOP_ORDER)
            homes.redis_socket(self._settings).unlink(missing_ok=True)
            self._record_deaths()
            LOGGER.info("stopped")
        self._record(Action.NODE_STOPPED, aet=self._settings.aet, port=self._settings.port)

    def _ready_line(self) -> str:
        s = self._settings
        web = f"http://{homes.own_address(s.web_host)}:{s.web_port}"
        return f"ready aet={s.aet} port={s.port} web={web} home={s.home}"

    def _child(self, name: str) -> Child:
        run_dir = self._settings.run_dir
        command = [sys.executable, "-P", "-m", "node", name, "--ready-file", str(run_dir / f"{name}.ready")]
        return Child(name, command, run_dir=run_dir, log_dir=homes.log_dir(self._settings))

    def _start_broker(self) -> None:
        """The embedded Redis, unless a URL names another; either way it must answer before anything else starts."""
        if self._settings.redis_url:
            self._ping_broker()
            return
        path = homes.redis_socket(self._settings)
        path.unlink(missing_ok=True)
        child = Child(
            "redis",
            embedded.command(path),
            run_dir=self._settings.run_dir,
            log_dir=homes.log_dir(self._settings),
        )
        self._supervisor.start([child])
        deadline = time.monotonic() + _BROKER_S
        while not path.exists():
            if child.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"the embedded Redis does not start: {child.last_words} (see log/redis.log)")
            time.sleep(0.02)
        self._ping_broker()

    def _ping_broker(self) -> None:
        try:
            self._node.broker.ping()
        except (OperationalError, RedisError, OSError) as exc:
            # the URL may hold a password: it is not repeated
            raise Transient(f"the broker does not answer ({type(exc).__name__}); see PACSNODE_REDIS_URL") from exc

    def _on_death(self, name: str, code: int, delay_s: float) -> None:
        remark(f"{name} ended (exit code {code}); it is started again in {delay_s:.0f} s")
        self._deaths.append(Death(name, code, now()))

    def _on_return(self, _name: str) -> None:
        """Only now: the database may keep us waiting, and the process that is to come back must not wait for that."""
        self._record_deaths()

    def _record_deaths(self) -> None:
        while self._deaths:
            death = self._deaths.pop(0)
            detail: dict[str, str | int] = {"process": death.name, "exit_code": death.code}
            try:
                self._record(Action.NODE_STOPPED, at=death.at, outcome=FAILED_FOR_NOW, **detail)
            except SQLAlchemyError as exc:  # the database may be what it died of; the log has it
                LOGGER.warning("the end of %s could not be recorded (%s)", death.name, type(exc).__name__)

    def _record(
        self, action: Action, *, at: dt.datetime | None = None, outcome: str = "success", **detail: str | int
    ) -> None:
        with self._node.database.write() as session:
            record(session, action, at=at, outcome=outcome, actor=self._actor, detail=detail)


def _environment(settings: Settings) -> Mapping[str, str]:
    """What the command line gave wins over the environment in the children too."""
    fixed = {name: str(getattr(settings, name)) for name in homes.REMEMBERED}
    fixed["home"] = str(settings.home.resolve())
    theirs = {k: v for k, v in os.environ.items() if k not in {f"PACSNODE_{n.upper()}_FILE" for n in fixed}}
    return {
        **theirs,
        **{f"PACSNODE_{name.upper()}": value for name, value in fixed.items()},
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": homes.python_path(),
    }
