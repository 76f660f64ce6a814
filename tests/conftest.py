"""How the tests share a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

SYSTEM = Path(__file__).parent / "system"

# Before torch is imported, and for the processes of the node too: two workers of tests with two threads each would
# wait for each other at every operation, which is several times slower than one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test asserts a time: an example that takes long on a busy machine is not a failure.
settings.register_profile("house", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("house")


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in a hook of its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several workers the system tests, which mostly wait, go to one and begin at once; files stay whole."""
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=lambda item: SYSTEM not in item.path.parents)
    for item in items:
        name = "system" if SYSTEM in item.path.parents else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))
