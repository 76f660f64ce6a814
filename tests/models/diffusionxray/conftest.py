"""Networks small enough for tests, and one thread."""

from __future__ import annotations

import pytest
import torch

from models.diffusionxray.config import NetworkConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> NetworkConfig:
    """Two levels: an image of 4 pixels is enough."""
    return NetworkConfig(fold=2, stem=16, width=16, mults=(1, 2))
