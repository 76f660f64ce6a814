"""How fast the detector is, beside a filter that everybody can run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch

from models.deeplesion.network import Detector
from models.deeplesion.run import find, has_fast_bfloat16, prepare
from models.deeplesion.samples import LabelledVolume
from models.deeplesion.validate import as_volume
from models.evaluation import baselines
from models.evaluation.speed import interleaved
from models.evaluation.table import Table
from models.simulation.cases import draw_case

SLICES, SIDE_PX, SPACING_MM = 8, 512, (2.0, 0.8, 0.8)
ROUNDS = 5


def speed(network: Detector) -> Table:
    """Seconds for a slice of 512² from HU to lesions, as it will run and in float32, and of non-local means."""
    case = draw_case(
        "forbild-thorax", seed=0, shape_zyx=(SLICES, SIDE_PX, SIDE_PX), spacing_zyx_mm=SPACING_MM, lesions=3
    )
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
        "A drawn chest, every slice a key slice: resampling, network, masks and grouping to lesions are in it.",
    )
    return interleaved("Speed", calls, slices=SLICES, rounds=ROUNDS, notes=notes)
