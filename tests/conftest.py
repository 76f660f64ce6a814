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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several workers (by files: `--dist loadfile`) the system tests begin at once: they take longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: SYSTEM not in item.path.parents)
