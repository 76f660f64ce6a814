"""Networks small enough for tests, and one thread."""

from __future__ import annotations

import pytest
import torch

from models.lefusion.config import NetworkConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> NetworkConfig:
    """Two levels: a slice of 4 voxels is enough."""
    return NetworkConfig(width=16, mults=(1, 2), heads=2, head_width=8, through=(1,))
