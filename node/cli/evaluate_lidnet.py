"""`evaluate lidnet`: the denoiser on held-out patients, on faint discs, on edges and noise; beside simple filters."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli.intervals import draw_intervals
from node.cli.learning import Report, facts_of, filled, in_words, progress_bar, tell
from node.cli.training_lidnet import DATA, HOLD_OUT, OUT, config_of, prepared
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.evaluation.table import Table
    from models.lidnet.config import LidnetConfig
    from models.lidnet.evaluate import Changed, EvaluationConfig
    from models.lidnet.socket import PluggedIn


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate.command("lidnet")(evaluate_lidnet)


def evaluate_lidnet(
    data: Path = DATA,
    out: Path = OUT,
    weights: Path | None = typer.Option(
        None, "--weights", exists=True, dir_okay=False, help="Weights of a training run. Default: those that ship."
    ),
    seed: int = typer.Option(0, "--seed"),
    hold_out: list[str] | None = HOLD_OUT,
    inserts: Path | None = typer.Option(
        None,
        "--inserts",
        exists=True,
        dir_okay=False,
        help="Low-contrast phantom of another simulator (iq-lcd-ct.npz).",
    ),
    per_patient: int = typer.Option(4, "--slices-per-patient", min=1, help="At most so many slices of each."),
    pairs: int = typer.Option(200, "--pairs", min=20, help="Images with and without each faint disc."),
    bm3d: bool = typer.Option(
        False, "--bm3d", help="BM3D among the filters (needs the extra `evaluation`, for non-commercial use; slow)."
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """RMSE, PSNR, SSIM, noise, HU bias and faint lesions on held-out patients; faint discs, edges, noise; speed.

    Beside it stand simple filters and no filter at all. What it writes, evaluation.json, is what a card shows;
    slice.png shows the slice that it changed most, lesions.png what it gains over the filters on faint lesions.

    \b
    pacsnode evaluate lidnet --data ./run1/slices --weights ./run1/weights.safetensors --out ./run1
    """
    from models.evaluation.table import Measured
    from models.lidnet import MODEL
    from models.lidnet.evaluate import EvaluationConfig, most_changed
    from models.lidnet.speed import speed
    from models.lidnet.train import FACTS

    slices = prepared(data, out)
    config = config_of(slices, hold_out)
    what = EvaluationConfig(slices_per_patient=per_patient, bm3d=bm3d)
    with progress_bar("held-out patients") as progress, in_words():
        network, sha256 = network_of(weights, config)
        on_patients, gains = _on_patients(network, slices, config, what=what, seed=seed, report=progress)
        on_phantoms = _on_phantoms(network, inserts, pairs=pairs, seed=seed, report=progress)
        progress("speed", 0, 2)
        timed = speed(network)
        progress("figure", 1, 2)
        shown = most_changed(network, slices, config, what=what, seed=seed)
        progress("figure", 2, 2)
    tables = (*on_patients, *on_phantoms, timed)
    measured = Measured(sha256, facts_of(weights, MODEL, FACTS), tables)
    tell(measured, out, as_json=as_json)
    draw(shown, out / "slice.png")
    if gains.rows:
        draw_intervals(gains, out / "lesions.png")


def _on_patients(
    network: PluggedIn,
    slices: Path,
    config: LidnetConfig,
    *,
    what: EvaluationConfig,
    seed: int,
    report: Report,
) -> tuple[list[Table], Table]:
    """Tables of held-out patients, and that of them which says what is gained on faint lesions."""
    from models.lidnet.evaluate import compared_methods, evaluate, full_dose
    from models.lidnet.planted import planted_lesions

    report("strengths of the filters", 0, 1)
    methods = compared_methods(network, slices, config, what=what, seed=seed)
    quality = evaluate(slices, config, methods, what=what, seed=seed, on_progress=partial(report, "held-out patients"))
    lesions, gains = planted_lesions(
        slices, config, methods, what=what, seed=seed, on_progress=partial(report, "faint lesions in them")
    )
    changed = full_dose(network, slices, config, slices_per_patient=what.slices_per_patient)
    return [quality, lesions, gains, changed], gains


def _on_phantoms(network: PluggedIn, inserts: Path | None, *, pairs: int, seed: int, report: Report) -> list[Table]:
    """Tables of faint discs, edges and noise in water."""
    import numpy as np

    from models.lidnet.detectability import phantom_inserts, simulated_discs
    from models.lidnet.sharpness import spectra

    report("faint discs", 0, 2)
    tables = [simulated_discs(network, pairs=pairs, seed=seed)]
    if inserts is not None:
        with np.load(inserts, allow_pickle=False) as arrays:
            tables.append(phantom_inserts(network, arrays))
    report("edges and noise", 1, 2)
    return [*tables, *spectra(network, seed=seed)]


def network_of(weights: Path | None, config: LidnetConfig) -> tuple[PluggedIn, str]:
    """Ready to run, on the GPU where there is one, whichever of the denoisers it is; and the weights' sha256.

    raises   ConfigurationError     a file of other weights
    """
    from safetensors import SafetensorError, safe_open

    from models.device import best
    from models.lidnet import MODEL
    from models.lidnet.run import prepare
    from models.lidnet.socket import plug
    from models.weights import load_weights

    device = best()
    if weights is None:
        shipped = MODEL.build()
        load_weights(shipped, MODEL.card())
        return prepare(shipped, device), MODEL.card().sha256
    try:
        with safe_open(weights, framework="pt") as file:
            is_unet = any(name.startswith("body.") for name in file.keys())  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as exc:
        raise ConfigurationError(f"{weights}: not the weights of a denoiser") from exc
    network = filled(plug(dataclasses.replace(config, socket="unet" if is_unet else "red-cnn")), weights)
    return prepare(network, device), hashlib.sha256(weights.read_bytes()).hexdigest()


def draw(shown: Changed, to: Path) -> None:
    """Full dose, simulated low dose, denoised, and what was taken away, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    window, taken = (-160, 240), (-100, 100)
    images = (
        ("full dose", shown.reference, window),
        (f"simulated {100 * shown.fraction:.0f} % dose", shown.low, window),
        ("denoised", shown.result, window),
        ("taken away (±100 HU)", shown.low - shown.result, taken),
    )
    for axis, (title, image, (low, high)) in zip(figure.subplots(1, len(images)), images, strict=True):
        axis.imshow(image, cmap="gray", vmin=low, vmax=high)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.savefig(to, dpi=120)
