"""How fast the detector is, beside a filter that everybody can run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch

from models.deeplesion.network import Detector
from models.deeplesion.run import find, prepare
from models.deeplesion.samples import LabelledVolume
from models.deeplesion.validate import as_volume
from models.device import has_fast_bfloat16
from models.evaluation import baselines
from models.evaluation.speed import interleaved
from models.evaluation.table import Table
from models.simulation.cases import draw_case

SPACING_MM = (2.0, 0.8, 0.8)


def speed(network: Detector, *, slices: int = 8, side_px: int = 512, rounds: int = 5) -> Table:
    """Seconds for a slice from HU to lesions, as it will run and in float32, and of non-local means."""
    shape = (slices, side_px, side_px)
    case = draw_case("forbild-thorax", seed=0, shape_zyx=shape, spacing_zyx_mm=SPACING_MM, lesions=3)
    volume = as_volume(
        LabelledVolume(case.voxels, SPACING_MM, case.lesions, "speed", "forbild-thorax", noise_free=True)
    )
    device = network.calibration.device
    calls: dict[str, Callable[[], object]] = {}
    if has_fast_bfloat16(device):
        calls["this model, bf16"] = partial(find, network, volume)
    calls["this model, float32"] = partial(find, prepare(copy.deepcopy(network), device, half=False), volume)
    calls["non-local means, 11 × 11"] = lambda: [
        baselines.non_local_means(one, strength_hu=40.0) for one in case.voxels
    ]
    threads = f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    notes = (
        f"Interleaved on one machine: {threads}.",
        f"A drawn chest of {side_px} × {side_px} pixels, every slice a key slice: resampling, network, masks and"
        " grouping to lesions are in it.",
    )
    return interleaved("Speed", calls, slices=slices, rounds=rounds, notes=notes)
