"""`evaluate diffusionxray`: the restorer and arms beside it under every degradation, on patients never trained on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli.learning import Report, arm_files, in_words, progress_bar
from node.cli.words import say

if TYPE_CHECKING:
    import torch

    from models.diffusionxray.data import Picture
    from models.diffusionxray.evaluate import Degrader, EvaluationConfig, Method, Shown
    from models.diffusionxray.model import Restorer
    from models.evaluation.table import Table

_MAIN = "restorer"
_SAMPLED = 24
"""Drawn chests whose intervals are measured under each way of exposing them."""
_CHEST_PX = 128


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate.command("diffusionxray")(evaluate_diffusionxray)


def evaluate_diffusionxray(
    data: Path = typer.Option(..., "--data", exists=True, file_okay=False, help="Folder of a training run."),
    weights: Path = typer.Option(
        ..., "--weights", exists=True, dir_okay=False, help="A restorer, as `bundle` makes it."
    ),
    out: Path = typer.Option(..., "--out", file_okay=False, help="Tables and figure go here."),
    arm: list[str] | None = typer.Option(
        None,
        "--arm",
        help="NAME=FILE: another restorer, a regressor or a ddpm, to be compared (repeatable). Files of"
        " one name are trainings of one arm from other seeds, and are pooled where arms are compared.",
    ),
    step: list[int] | None = typer.Option(
        None, "--steps", min=1, help="Of the refiner (repeatable). Without it: 1, 2, 4 and 8.", show_default=False
    ),
    most: int = typer.Option(24, "--pictures", min=1, help="Test pictures at most, evenly."),
    crop: int = typer.Option(512, "--crop", min=64, help="Side of the square that is cut out of each, pixels."),
    cases: int = typer.Option(24, "--cases", min=0, help="Drawn chests with nodules; made once, half a minute each."),
    chests: int = typer.Option(
        200,
        "--chests",
        min=0,
        help="Drawn chests for other physics and, where there are arms, for their comparison; made once, some seconds"
        " each.",
    ),
    seed: int = typer.Option(0, "--seed", help="Of degradations and crops."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """PSNR, SSIM and RMSE of every arm under every degradation, beside filters; nodules kept, moved and invented;
    intervals calibrated on validation patients and held to test patients; all this under other physics; speed.

    Degradations are made, one of them by a family that nothing was trained on: no number says what is gained on
    radiographs as they come. What it writes, evaluation.json, is what a card shows; pictures.png shows, under each
    degradation, what was changed most.

    \b
    pacsnode evaluate diffusionxray --data ./run --weights ./run/restorer/weights.safetensors --out ./run
    pacsnode evaluate diffusionxray --data ./run --weights ./run/restorer/weights.safetensors \\
        --arm bicubic=./run/bicubic/weights.safetensors --arm learnt=./run/munit-1/weights.safetensors \\
        --arm learnt=./run/munit-2/weights.safetensors --out ./compared
    """
    from models.diffusionxray import arms
    from models.diffusionxray.data import load_pictures
    from models.diffusionxray.evaluate import EvaluationConfig, arms_table, evaluate, most_changed, speed_table
    from models.diffusionxray.facts import facts_of
    from models.diffusionxray.known import rays_in
    from models.diffusionxray.pairs import BICUBIC
    from models.evaluation.table import Measured

    files = arm_files(arm or [], taken=(_MAIN,))
    what = EvaluationConfig(crop_px=crop, most=most)
    with in_words(), progress_bar() as progress:
        restorer = arms.restorer_of(weights, _device())
        methods, trainings = _methods(restorer, files, step or [1, 2, 4, 8])
        degraders = arms.degraders_of(data, _device())
        test, validation = (load_pictures(data / "pictures", split=split) for split in ("test", "validation"))
        every = {**degraders, arms.UNSEEN: arms.unseen}
        found = evaluate(methods, every, test, validation, what=what, seed=seed, on_progress=progress)
        tables = [*found.tables]
        if len(trainings) > 1:
            tables.append(arms_table(found.values, trainings))
        tables += _audit(dict(list(methods.items())[:2]), every, data / "cases", cases, seed, progress)
        tables += _intervals(restorer, degraders, (validation, test), what, seed, progress)
        rays = rays_in(data / "rays", chests, on_progress=partial(progress, "drawing chests for other physics"))
        tables += _other_physics(restorer, dict(list(methods.items())[:1]), rays, seed, progress)
        if trainings:
            known = {
                name: one for name, one in degraders.items() if name == BICUBIC or name.startswith(tuple(arms.LEARNT))
            }
            tables += _arms_on_chests(methods, trainings, known, rays, validation, seed, progress)
        progress("speed and figure", 0, 1)
        tables.append(speed_table(methods, side_px=crop))
        shown = most_changed(next(iter(methods.values())), every, test, what=what, seed=seed)
        progress("speed and figure", 1, 1)
        measured = Measured(hashlib.sha256(weights.read_bytes()).hexdigest(), facts_of(weights), tuple(tables))
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.md").write_text(measured.markdown(), encoding="utf8")
    (out / "evaluation.json").write_text(measured.json(), encoding="utf8")
    draw(shown, out / "pictures.png")
    typer.echo(measured.json() if as_json else measured.markdown())


def _methods(
    restorer: Restorer, files: Mapping[str, Mapping[str, Path]], steps: Sequence[int]
) -> tuple[dict[str, Method], dict[str, list[str]]]:
    """The restorer as it ships first, then its regressor, other steps, and the other arms; and the methods of each arm.

    raises   ModelError
    """
    from models.diffusionxray.arms import methods_of, restorer_methods

    sampling = restorer.config.sampling
    ships = sampling.returned_steps
    order = list(dict.fromkeys([ships, 0, sampling.flow_steps, *steps]))
    methods = restorer_methods(_MAIN, restorer, order)
    trainings: dict[str, list[str]] = {}
    for name, several in files.items():
        for label, file in several.items():
            found = methods_of(label, file, _device(), steps=(ships, 0))
            methods.update(found)
            for method in found:
                trainings.setdefault(name + method.removeprefix(label), []).append(method)
    return methods, trainings


def _audit(
    methods: Mapping[str, Method],
    degraders: Mapping[str, Degrader],
    folder: Path,
    count: int,
    seed: int,
    progress: Report,
) -> tuple[Table, ...]:
    """Nodules of known truth; a third as many chests more, and four at least, are for the detector to be set on."""
    from models.diffusionxray.audit import audit
    from models.diffusionxray.known import cases_in

    if not count:
        return ()
    extra = max(4, count // 3)
    known = cases_in(folder, count + extra, on_progress=partial(progress, "drawing chests"))
    setting = [(case.absent, case.spacing_mm) for case in known[count:]]
    return audit(methods, degraders, known[:count], setting, seed=seed, on_progress=progress)


def _other_physics(
    restorer: Restorer, methods: Mapping[str, Method], rays: Sequence[Path], seed: int, progress: Report
) -> tuple[Table, ...]:
    """Drawn chests exposed in several ways; intervals of the first of them, as each takes several samples."""
    from models.diffusionxray.arms import sampler_of
    from models.diffusionxray.shifted import shifted, shifted_intervals

    if not rays:
        return ()
    return (
        shifted(methods, rays, seed=seed, on_progress=progress),
        shifted_intervals(
            sampler_of(restorer), rays[:_SAMPLED], restorer.config.guard, seed=seed, on_progress=progress
        ),
    )


def _arms_on_chests(
    methods: Mapping[str, Method],
    trainings: Mapping[str, Sequence[str]],
    degraders: Mapping[str, Degrader],
    rays: Sequence[Path],
    validation: Sequence[Picture],
    seed: int,
    progress: Report,
) -> tuple[Table, ...]:
    """Every arm on drawn chests under the degradations that arms are trained on: many patients, truth free of noise."""
    from models.diffusionxray.evaluate import EvaluationConfig, arms_table, evaluate, restoration_table
    from models.diffusionxray.known import chest_pictures

    if not rays:
        return ()
    wanted = [next(iter(methods)), *(name for names in trainings.values() for name in names)]
    what = EvaluationConfig(crop_px=_CHEST_PX, most=len(rays), filters=())
    found = evaluate(
        {name: methods[name] for name in wanted}, degraders, chest_pictures(rays), validation, what=what, seed=seed,
        on_progress=lambda doing, done, total: progress(f"drawn chests, {doing}", done, total),
    )  # fmt: skip
    told = restoration_table(found.values, {}, of="drawn chests")
    return (told, arms_table(found.values, trainings, on="drawn chests")) if len(trainings) > 1 else (told,)


def _intervals(
    restorer: Restorer,
    degraders: Mapping[str, Degrader],
    pictures: tuple[Sequence[Picture], Sequence[Picture]],
    what: EvaluationConfig,
    seed: int,
    progress: Report,
) -> tuple[Table, ...]:
    """Intervals calibrated on validation and held to test pictures, under what adds noise and is in the shipped mix."""
    from models.diffusionxray.arms import NOISELESS, UNSEEN, sampler_of, unseen
    from models.diffusionxray.coverage import coverage
    from models.diffusionxray.pairs import MIX

    guard = restorer.config.guard
    wanted = math.ceil(round(1 / guard.alpha, 9)) - 1
    validation, test = pictures
    if (patients := len({one.key for one in validation})) < wanted or what.most < wanted:
        say(f"no intervals: {patients} validation patients, {min(patients, what.most)} used, {wanted} are wanted")
        return ()
    known = {name: one for name, one in degraders.items() if name in MIX and name not in NOISELESS}
    found = coverage(
        sampler_of(restorer), known, {UNSEEN: unseen}, validation, test, guard, what=what, seed=seed,
        on_progress=progress,
    )  # fmt: skip
    say(f"widening that holds: {found.widening:.4g}")
    return found.tables


def _device() -> torch.device:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(shown: Sequence[Shown], to: Path) -> None:
    """Under each degradation: degraded, restored, what was changed, and the truth, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2 * len(shown)), layout="constrained")
    rows = figure.subplots(len(shown), 4, squeeze=False)
    for row, one in zip(rows, shown, strict=True):
        low, high = float(one.truth.min()), float(one.truth.max())
        changed = one.restored - one.degraded
        images = (
            (f"before: {one.condition}", one.degraded, "gray", (low, high)),
            ("after", one.restored, "gray", (low, high)),
            ("after - before (±0.2)", changed, "RdBu_r", (-0.2, 0.2)),
            ("truth", one.truth, "gray", (low, high)),
        )
        for axis, (title, image, cmap, (least, most)) in zip(row, images, strict=True):
            axis.imshow(image, cmap=cmap, vmin=least, vmax=most)
            axis.set_title(title, fontsize=10)
            axis.set_axis_off()
    figure.savefig(to, dpi=110)
