"""A network small enough for tests, and one thread."""

from __future__ import annotations

import pytest
import torch

from models.clinreadnet.config import NetworkConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> NetworkConfig:
    """Two stages, windows of 4: an image of 32 pixels is enough."""
    return NetworkConfig(width=16, depths=(2, 2), heads=(1, 2), window=4)
