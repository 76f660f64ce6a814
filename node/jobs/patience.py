"""How long to wait before something is tried again."""

from __future__ import annotations

import datetime as dt

from node.jobs.record import now
from node.settings import Settings

_MOST_DOUBLINGS = 20


def after_failures(settings: Settings, failures: int) -> dt.timedelta:
    """Twice as long after every failure."""
    wait_s = settings.retry_first_s * 2 ** min(max(failures - 1, 0), _MOST_DOUBLINGS)
    return dt.timedelta(seconds=min(wait_s, settings.retry_most_s))


def after_trouble(settings: Settings, since: dt.datetime) -> dt.timedelta:
    """As long again as it has waited since then: it doubles too, where nobody counts because nothing was tried."""
    wait_s = max((now() - since).total_seconds(), settings.retry_first_s)
    return dt.timedelta(seconds=min(wait_s, settings.retry_most_s))
