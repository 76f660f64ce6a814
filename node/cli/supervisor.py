"""What `pacsnode up` does all day: start the processes, keep their logs, start again what dies, stop all in order.

One thread: it waits on the children's output and on signals, so that forking stays safe.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from node.cli.children import Child
from node.cli.words import WRONG
from node.errors import ConfigurationError, Transient

LOGGER = logging.getLogger("pacsnode.up")
_TICK_S = 0.25
_DOOR_S = 15.0
"""Associations that are open when the receiver is told to stop get so long to end."""

Died = Callable[[str, int, float], None]
"""(name, exit code, seconds until it is started again)."""
Returned = Callable[[str], None]


class NotStarted(Transient):
    """A process does not come up; its log says why."""


@dataclass
class Supervisor:
    """`start` some children, `watch` until a signal comes, `stop` all in the order given.

    on_death    called at once: whatever it waits for, the child waits for too
    on_return   called with its name once a child has been started again
    """

    environment: Mapping[str, str]
    on_death: Died
    on_return: Returned
    grace_s: float
    children: list[Child] = field(default_factory=list)
    stopping: bool = False
    hurry: bool = False
    _due: dict[str, float] = field(default_factory=dict)
    _wakeup: tuple[int, int] | None = None

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT ask for an orderly end, a second one for a quick one."""
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, _number: int, _frame: object) -> None:
        self.hurry = self.stopping
        self.stopping = True

    def start(self, children: Sequence[Child]) -> None:
        for child in children:
            self.children.append(child)
            child.begin(self.environment)
            LOGGER.info("%s started, process %d", child.name, child.pid)

    def until_ready(self, children: Sequence[Child], on_ready: Callable[[Child], None]) -> bool:
        """Wait for all of them; False where a signal came first. raises NotStarted, ConfigurationError"""
        waiting = list(children)
        while waiting and not self.stopping:
            self._turn()
            for child in [child for child in waiting if child.ready() is not None]:
                waiting.remove(child)
                on_ready(child)
            for child in waiting:
                if child.restarts >= 3:
                    raise NotStarted(f"{child.name} does not start: {child.last_words} (see its log)")
        return not self.stopping

    def watch(self) -> None:
        while not self.stopping:
            self._turn()

    def _turn(self) -> None:
        self._wait()
        for child in self.children:
            if child.name in self._due:
                if time.monotonic() >= self._due[child.name]:
                    del self._due[child.name]
                    child.begin(self.environment)
                    LOGGER.info("%s started again, process %d", child.name, child.pid)
                    self.on_return(child.name)
                continue
            code = child.poll()
            if code is not None:
                self._bury(child, code)

    def _bury(self, child: Child, code: int) -> None:
        was_ready = child.ready() is not None
        delay_s = child.buried()
        if code == WRONG and not was_ready:  # it said what is wrong with its settings: another try says the same
            raise ConfigurationError(f"{child.name}: {child.last_words}")
        LOGGER.warning("%s ended (exit code %d); it is started again in %.0f s", child.name, code, delay_s)
        self._due[child.name] = time.monotonic() + delay_s
        self.on_death(child.name, code, delay_s)

    def _wait(self) -> None:
        """Until something was printed, a signal came, or a tick has passed; logs are written meanwhile."""
        with selectors.DefaultSelector() as selector:
            for child in self.children:
                if child.output is not None:
                    selector.register(child.output, selectors.EVENT_READ, child)
            if self._wakeup is not None:
                selector.register(self._wakeup[0], selectors.EVENT_READ, None)
            for key, _ in selector.select(_TICK_S):
                if key.data is None:
                    os.read(key.fd, 4096)
                else:
                    key.data.pump()
                    if key.data.output is None:
                        time.sleep(0.01)  # its output ended, its exit code follows

    def stop(self, order: Sequence[Sequence[str]]) -> None:
        """End the children group by group: the first named first, each group within its time, then by force."""
        self.stopping = True
        by_name = {child.name: child for child in self.children}
        for position, names in enumerate(order):
            group = [by_name[name] for name in names if name in by_name]
            for child in group:
                child.signal(signal.SIGTERM)
            self._await_end(group, _DOOR_S if position == 0 else self.grace_s)
        for child in self.children:
            child.kill()
            child.close()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for end in self._wakeup:
                os.close(end)
            self._wakeup = None

    def _await_end(self, group: Sequence[Child], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        left = list(group)
        while left and time.monotonic() < deadline and not self.hurry:
            self._wait()
            for child in [child for child in left if child.poll() is not None]:
                left.remove(child)
                LOGGER.info("%s ended", child.name)
        for child in left:
            LOGGER.warning("%s did not end in time; what it was doing is given back by its lease", child.name)
            child.kill()
