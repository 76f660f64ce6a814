"""How many associations there may be at once, in all and from one host."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

SHARE_OF_ONE_HOST = 0.75
"""Of all associations for one host: a sender that stalls them all leaves some to the others."""


class Slots:
    """Thread safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = math.ceil(most * SHARE_OF_ONE_HOST)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, host: str) -> Iterator[bool]:
        """Whether there is one for this host; held until the end of the block."""
        with self._lock:
            free = self._taken.total() < self._most and self._taken[host] < self._most_of_one
            if free:
                self._taken[host] += 1
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self._taken[host] -= 1
                    if not self._taken[host]:
                        del self._taken[host]
