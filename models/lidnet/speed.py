"""How fast the denoiser is, beside a filter that everybody can run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from models.device import has_fast_bfloat16
from models.evaluation import baselines
from models.evaluation.speed import interleaved
from models.evaluation.table import Table
from models.lidnet.network import Denoiser
from models.lidnet.run import BATCH, denoise, prepare
from models.lidnet.socket import PluggedIn

SIDE_PX, ROUNDS = 512, 7


def speed(network: PluggedIn) -> Table:
    """Seconds for a slice of 512² as it will run, in float32, and of non-local means on the same machine."""
    device = next(network.parameters()).device
    slices = np.random.default_rng(0).normal(0, 100, (BATCH, SIDE_PX, SIDE_PX)).astype(np.float32)
    calls: dict[str, Callable[[], object]] = {}
    if isinstance(network, Denoiser) and has_fast_bfloat16(device):
        calls["this model, bf16"] = partial(denoise, network, slices)
    calls["this model, float32"] = partial(denoise, prepare(copy.deepcopy(network), device, half=False), slices)
    calls["non-local means, 11 × 11"] = lambda: [baselines.non_local_means(one, strength_hu=40.0) for one in slices]
    threads = f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return interleaved("Speed", calls, slices=BATCH, rounds=ROUNDS, notes=(f"Interleaved on one machine: {threads}.",))
