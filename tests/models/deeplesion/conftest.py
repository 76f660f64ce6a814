"""A detector small enough for tests, and one thread."""

from __future__ import annotations

import pytest
import torch

from models.deeplesion.config import NetworkConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> NetworkConfig:
    """A tenth of the width, two categories."""
    return NetworkConfig(
        categories=("lung", "liver"),
        widths=(16, 16, 24),
        fpn_channels=16,
        rpn_width=16,
        head_widths=(16, 32),
        mask_width=8,
    )
