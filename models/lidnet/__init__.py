"""LIDnet's denoiser for low-dose CT.

Chen, Long, Ren, Sun, Pu: Lesion-Inspired Denoising Network (arXiv 2104.08845). What ships is the denoiser, trained with
the pixel loss alone: without the detector's feedback it is "a denoiser", not what the paper calls LIDnet. That is arm
A6 of collaborate.py; ABLATION.md says what it is worth.
"""

from __future__ import annotations

import torch

from models.catalogue import Accepts, Model
from models.lidnet.config import LidnetConfig
from models.lidnet.network import Denoiser, build
from models.lidnet.run import prepare, run

HELD_OUT = (
    "0377884e0a",
    "13b7d063c6",
    "281e87a1b3",
    "394a511e74",
    "3bdc6e3460",
    "46d5b49895",
    "5fbbbbc335",
    "665b3c67df",
    "66917c647f",
    "671635763f",
    "ab3742c649",
    "c0463a7410",
    "c73fc507dc",
    "f0672dbf65",
    "f5c07f5e03",
    "fb1f7255a8",
)
"""Patients (keys of the prepared slices) that the training never sees: the evaluation's."""

FAST = LidnetConfig(held_out=HELD_OUT)
"""The configuration of the weights that ship."""


def build_fast() -> Denoiser:
    """The untrained network of the weights that ship."""
    return build(FAST.network)


def prepare_for(network: Denoiser, device: torch.device) -> Denoiser:
    """In bf16 where the device has it."""
    return prepare(network, device)


MODEL = Model(
    name="lidnet-fast",
    task="denoising of low-dose CT",
    accepts=Accepts(kind="volume", modalities=("CT",)),
    weights="lidnet-fast",
    build=build_fast,
    prepare=prepare_for,
    run=run,
)
