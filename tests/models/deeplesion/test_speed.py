"""The table of speeds: the detector as it runs, in float32, and a filter that everybody can run, in turns."""

import torch

from models.deeplesion.config import NetworkConfig
from models.deeplesion.network import build
from models.deeplesion.run import prepare
from models.deeplesion.speed import speed
from models.device import has_fast_bfloat16


def test_detector_and_filter_are_timed_on_the_same_slices(tiny: NetworkConfig) -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    table = speed(prepare(build(tiny), cpu), slices=5, side_px=64, rounds=2)
    methods = [row.method for row in table.rows]
    half = ["this model, bf16"] if has_fast_bfloat16(cpu) else []
    assert methods == [*half, "this model, float32", "non-local means, 11 × 11"]
    assert {row.condition for row in table.rows} == {"2 rounds of 5 slices"}
    assert all(row.values["seconds a slice"].mean > 0 for row in table.rows)
    assert table.rows[0].values[f"ratio to {methods[0]}"].mean == 1
