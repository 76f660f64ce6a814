"""The low-contrast measures, on a network that changes nothing and on the phantom of another simulator."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.lidnet import detectability
from models.lidnet.detectability import phantom_inserts, simulated_discs
from models.lidnet.network import build
from models.lidnet.run import prepare

PHANTOM = Path(__file__).parents[3].parent / "shared" / "data" / "iq-lcd-ct.npz"


@pytest.fixture
def idle(small):
    """An untrained network: it removes nothing."""
    return prepare(build(small.network), torch.device("cpu"), half=False)


def test_doing_nothing_keeps_contrast_and_detectability(idle, monkeypatch):
    monkeypatch.setattr(detectability, "VIEWS", 160)
    table = simulated_discs(idle, fractions=(0.25,), pairs=80)
    before, after = table.rows[0], table.rows[1]
    assert before.values == after.values
    for row in table.rows:
        assert row.values["contrast kept"].mean == pytest.approx(1, abs=0.6)
    assert max(row.values["d′"].mean for row in table.rows) > 1


@pytest.mark.data
@pytest.mark.skipif(not PHANTOM.is_file(), reason="no real data beside the checkout")
def test_reads_the_inserts_of_the_low_contrast_phantom(idle):
    with np.load(PHANTOM) as arrays:
        table = phantom_inserts(idle, {name: arrays[name] for name in arrays.files})
    assert len(table.rows) == 2 * 2 * 4
    full = [row for row in table.rows if row.condition.startswith("100 %") and row.method == "no processing"]
    assert np.mean([row.values["d′"].mean for row in full]) > 0.5
