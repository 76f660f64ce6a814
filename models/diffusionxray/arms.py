"""Trained weights as methods and degraders that the evaluation can call: which network they are, their facts tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.contract import FloatArray, ModelError
from models.diffusionxray.config import CropConfig, DiffusionXRayConfig, NetworkConfig, Stage
from models.diffusionxray.coverage import Sampler
from models.diffusionxray.evaluate import Degrader, Method, at_steps
from models.diffusionxray.facts import facts_of, fill, hold_to_stage, size_of
from models.diffusionxray.model import FAST, Restorer, prepare
from models.diffusionxray.munit_train import Translator
from models.diffusionxray.network import RestorationUNet, build
from models.diffusionxray.pairs import BICUBIC, IDENTITY, PHYSICS, with_coarse_of
from models.diffusionxray.prior import degrade_by_prior, read_prior
from models.diffusionxray.run import RestoredPicture, restore
from models.diffusionxray.samplers import Noise, Predict, ancestral, dpm_solver
from models.diffusionxray.schedule import Path as Times
from models.diffusionxray.schedule import cosine, even_steps
from models.diffusionxray.tiles import padded, predictor
from models.diffusionxray.train import digest
from models.simulation.degradation import (
    FAINT,
    bicubic_pair,
    degrade,
    degrade_unseen,
    draw_degradation,
    draw_unseen,
)

RESTORER = "restorer"
"""Stage of a file with both networks."""
SEED = 0
"""Of all noise that methods draw: the same picture is restored to the same again."""
UNSEEN = "unseen"
COARSE_KEPT = ", coarse structure kept"
NOISELESS = (BICUBIC, IDENTITY)
"""Degraders that add none, or hardly any: there is nothing for an interval to be measured in."""
WEIGHTS = "weights.safetensors"
CPU = torch.device("cpu")
FAST_CROPS = CropConfig()
OnTensors = Callable[[Tensor, int], Tensor]
"""Clean pictures (B, 1, H, W) and a seed to degraded ones."""


def network_of(weights: Path, stage: Stage, device: torch.device = CPU) -> RestorationUNet:
    """One trained network, of the size that its facts tell. raises ModelError: other weights, other facts"""
    network = build(_size(facts_of(weights), stage))
    fill(network, weights)
    return network.to(device).eval().requires_grad_(False)


def restorer_of(weights: Path, device: torch.device) -> Restorer:
    """Both networks of one file, of the sizes that its facts tell. raises ModelError: other weights, other facts"""
    facts = facts_of(weights)
    hold_to_stage(facts, RESTORER)
    both: tuple[Stage, Stage] = ("regressor", "refiner")
    sizes = {stage: _size(facts.get(stage, {}), stage) for stage in both}
    network = Restorer(replace(FAST, networks={**FAST.networks, **sizes}))
    fill(network, weights)
    return prepare(network, device)


def bundled(regressor: Path, refiner: Path) -> tuple[Restorer, dict[str, object]]:
    """The networks of two trainings as one, and what is known of both.

    raises   ModelError     the refiner was trained with another regressor, or weights are missing or others
    """
    first, second = network_of(regressor, "regressor"), network_of(refiner, "refiner")
    facts = {"regressor": dict(facts_of(regressor)), "refiner": dict(facts_of(refiner))}
    if facts["refiner"].get("regressor") != digest(first):
        raise ModelError("the refiner was trained with another regressor")
    sizes: dict[Stage, NetworkConfig] = {"regressor": first.config, "refiner": second.config}
    both = Restorer(replace(FAST, networks={**FAST.networks, **sizes}))
    both.regressor.load_state_dict(first.state_dict())
    both.refiner.load_state_dict(second.state_dict())
    return both, {"stage": RESTORER, **facts}


def methods_of(name: str, weights: Path, device: torch.device, *, steps: Sequence[int]) -> dict[str, Method]:
    """All that these weights can do to a picture: a restorer at each number of steps, else the one network they are.

    The paper's DDPM twice, since the sampler counts: as the paper draws, and by the solver in few steps.

    raises   ModelError     other weights, or other facts
    """
    stage = facts_of(weights).get("stage", RESTORER)
    if stage == RESTORER:
        return restorer_methods(name, restorer_of(weights, device), steps)
    if stage == "regressor":
        return {name: _by_regressor(network_of(weights, "regressor", device))}
    if stage == "ddpm":
        return by_ddpm(name, network_of(weights, "ddpm", device), FAST)
    raise ModelError(f"{weights}: {stage} restores nothing by itself")


def restorer_methods(name: str, network: Restorer, steps: Sequence[int]) -> dict[str, Method]:
    """The regressor alone for no steps, and the bounded result of each other number."""

    def restored(unit: FloatArray, spacing_mm: float, count: int) -> RestoredPicture:
        return _restored(network, unit, spacing_mm, steps=count)

    return at_steps(restored, steps, name=name)


def sampler_of(network: Restorer) -> Sampler:
    """A restorer with as many samples as its configuration says."""
    return partial(_restored, network, samples=network.config.sampling.samples)


def degraders_of(run: Path, device: torch.device = CPU) -> dict[str, Degrader]:
    """Physics, bicubic, identity and, where this training run has them, the learnt degraders. raises ModelError

    Each of these a second time, with the clean picture's coarse structure: without the tone that it makes up.
    """
    found: dict[str, Degrader] = {PHYSICS: _by_physics, BICUBIC: _by_bicubic, IDENTITY: _by_identity}
    for name, degrader in LEARNT.items():
        if (weights := run / name / WEIGHTS).is_file():
            found[name] = _on_arrays(degrader(weights, device))
            found[name + COARSE_KEPT] = _coarse_kept(found[name])
    return found


def unseen(unit: FloatArray, spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    """The family that no network was trained on."""
    return degrade_unseen(unit, spacing_mm, draw_unseen(rng), rng)


def _coarse_kept(by: Degrader) -> Degrader:
    def degraded(unit: FloatArray, spacing_mm: float, rng: np.random.Generator) -> FloatArray:
        return with_coarse_of(unit, by(unit, spacing_mm, rng), FAST_CROPS.coarse_mm / spacing_mm)

    return degraded


def munit_degrader(weights: Path, device: torch.device = CPU) -> OnTensors:
    """The trained translator, its style drawn. raises ModelError"""
    translator = Translator.read(weights)
    translator.munit.to(device)

    def degraded(clean: Tensor, seed: int) -> Tensor:
        return translator.degrade(clean.to(device).clamp(-1, 1), None, torch.Generator().manual_seed(seed)).cpu()

    return degraded


def prior_degrader(weights: Path, device: torch.device = CPU) -> OnTensors:
    """The trained prior, at its usual strength. raises ModelError"""
    network = read_prior(weights).to(device)

    def degraded(clean: Tensor, seed: int) -> Tensor:
        return degrade_by_prior(network, clean.to(device).clamp(-1, 1), seed=seed).cpu()

    return degraded


LEARNT: dict[str, Callable[[Path, torch.device], OnTensors]] = {"munit": munit_degrader, "prior": prior_degrader}
"""Degraders by name of their folder in a training run."""


def _by_physics(unit: FloatArray, spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    return degrade(unit, spacing_mm, draw_degradation(rng), rng)


def _by_bicubic(unit: FloatArray, _spacing_mm: float, _rng: np.random.Generator) -> FloatArray:
    return bicubic_pair(unit, FAST_CROPS.bicubic_factor)


def _by_identity(unit: FloatArray, spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    return degrade(unit, spacing_mm, draw_degradation(rng, FAINT), rng)


def _on_arrays(degrader: OnTensors) -> Degrader:
    def degraded(unit: FloatArray, _spacing_mm: float, rng: np.random.Generator) -> FloatArray:
        told = degrader(torch.from_numpy(unit)[None, None], int(rng.integers(2**31)))
        array: FloatArray = told[0, 0].numpy()
        return array

    return degraded


def _restored(
    network: Restorer, unit: FloatArray, spacing_mm: float, *, steps: int | None = None, samples: int = 1
) -> RestoredPicture:
    spacing = (spacing_mm, spacing_mm)
    return restore(
        network.regressor, network.refiner, unit, spacing, network.config, seed=SEED, steps=steps, samples=samples
    )


def _by_regressor(network: RestorationUNet) -> Method:
    """The network's own result: without the refiner there is nothing to bound."""

    @torch.inference_mode()
    def restored(unit: FloatArray, _spacing_mm: float) -> FloatArray:
        return _like(unit, network(_canvas(unit, network)))

    return restored


def by_ddpm(name: str, network: RestorationUNet, config: DiffusionXRayConfig) -> dict[str, Method]:
    """The paper's restorer by ancestral sampling, and by DPM-Solver++."""
    schedule, sampling = cosine(config.schedule), config.sampling

    def by(sampler: Callable[[Predict, Times, Tensor, Noise], Tensor], steps: int) -> Method:
        path = even_steps(schedule, steps)

        @torch.inference_mode()
        def restored(unit: FloatArray, _spacing_mm: float) -> FloatArray:
            condition = _canvas(unit, network)
            return _like(unit, sampler(predictor(network, config.tiles, condition), path, condition, Noise(SEED)))

        return restored

    return {
        name: by(ancestral, sampling.ancestral_steps),
        f"{name}, solver of {sampling.solver_steps} steps": by(dpm_solver, sampling.solver_steps),
    }


def _canvas(unit: FloatArray, network: RestorationUNet) -> Tensor:
    """The picture as the network takes it, (1, 1, H, W)."""
    return torch.from_numpy(padded(unit, network.config.multiple))[None, None].to(next(network.parameters()).device)


def _like(unit: FloatArray, canvas: Tensor) -> FloatArray:
    """What lies over the picture, (Y, X)."""
    array: FloatArray = canvas[0, 0, : unit.shape[0], : unit.shape[1]].cpu().numpy()
    return array


def _size(told: Mapping[str, Any], stage: Stage) -> NetworkConfig:
    """The network of these facts; the shipped one where they tell of none."""
    return size_of(told, stage) if told.get("network") is not None else FAST.networks[stage]
