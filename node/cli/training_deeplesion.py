"""`train deeplesion`: the lesion detector, on drawn cases and, where there are any, on real chest volumes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from node.cli.learning import CASES, PRESET, RESUME, SEED, STEPS, in_words, progress_bar
from node.cli.series import LEAST_SLICES, ct_series, in_air, short_digest
from node.cli.words import say
from node.errors import ConfigurationError, NotEligible

if TYPE_CHECKING:
    from models.deeplesion.config import NetworkConfig

GOING_ON = 1 / 3
"""Of the learning rate, for weights that have learnt before."""
_LARGEST_STEP_MM = 5.0
DATA = typer.Option(
    None,
    "--data",
    exists=True,
    file_okay=False,
    help="Chest CT: DICOM files, or volumes prepared from them (*.npz). Without it: drawn cases alone.",
)
MARKS = typer.Option(
    None,
    "--marks",
    exists=True,
    file_okay=False,
    help="Lesions marked in a PACS, as `pacsnode harvest` leaves them, or the public DeepLesion.",
)
OUT = typer.Option(..., "--out", file_okay=False, help="Volumes, samples, checkpoint and weights go here.")
START = typer.Option(
    None,
    "--start",
    exists=True,
    dir_okay=False,
    help="Weights to go on from, at a third of the learning rate: those of a training, or those that ship"
    " (models/weights/deeplesion-fast.safetensors). Of one category or of several, whatever is trained: with another"
    " number, all categories start alike.",
)
HOLD_OUT = typer.Option(
    None,
    "--hold-out",
    help="Key of a patient who is for evaluation only (repeatable; keys are the first part of the volumes' names)."
    " Without it: those whom the shipped denoiser never saw.",
)


def register(train: typer.Typer) -> None:
    """Add the command to the group `train`."""
    train.command("deeplesion")(train_deeplesion)


def train_deeplesion(
    data: Path | None = DATA,
    marks: Path | None = MARKS,
    out: Path = OUT,
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    cases: int | None = CASES,
    single: bool = typer.Option(False, "--single", help="The twin with one category."),
    slices: int | None = typer.Option(
        None, "--slices", min=1, help="That the network looks at, 2 mm apart: an odd number. Default: as what ships."
    ),
    fused: bool = typer.Option(
        False,
        "--fused",
        help="Every three slices are an image of their own, and features of all images meet where a region is judged"
        " (3DCE): 9, 15, 21 or 27 slices.",
    ),
    missing: Literal["teacher", "plain"] = typer.Option(
        "teacher", "--missing", help="What is sure but not annotated on real CT: ignored, or background."
    ),
    measured_only: bool = typer.Option(
        False,
        "--measured-only",
        help="Of --marks, lesions that were drawn (SEG, RTSTRUCT) but measured by nobody are ignored, not learnt.",
    ),
    start: Path | None = START,
    resume: bool = RESUME,
    hold_out: list[str] | None = HOLD_OUT,
) -> None:
    """Train DeepLesion's detector on simulated lesions, in drawn patients and in real lungs.

    Ctrl-C loses at most the steps since the last checkpoint: the same command goes on from it.

    \b
    pacsnode train deeplesion --out ./run1
    pacsnode train deeplesion --data ./ct --out ./run2
    pacsnode train deeplesion --marks ./harvested --start ./run2/weights.safetensors --out ./run3
    pacsnode train deeplesion --start ./single/weights.safetensors --out ./pseudo
    pacsnode train deeplesion --slices 9 --fused --out ./fused
    """
    from models.deeplesion.config import TRAINING
    from models.deeplesion.model import FAST
    from models.deeplesion.train import train
    from models.lidnet import HELD_OUT

    volumes = [] if data is None else _prepared(data, out)
    network = shaped(FAST.network, out, single=single, slices=slices, fused=fused)
    config = dataclasses.replace(FAST, network=network, held_out=tuple(hold_out or HELD_OUT))
    drawn = dataclasses.replace(config.data, cases=cases or config.data.cases, derived_marks=not measured_only)
    config = dataclasses.replace(config, data=drawn)
    training = dataclasses.replace(TRAINING[preset], missing=missing)
    if start is not None:
        training = dataclasses.replace(training, learning_rate=GOING_ON * training.learning_rate)
    if steps is not None:
        training = dataclasses.replace(training, steps=steps)
    with in_words(), progress_bar() as progress:
        weights = train(
            config,
            out,
            preset=preset,
            seed=seed,
            volumes=volumes,
            marks=[] if marks is None else [marks],
            training=training,
            start=start,
            resume=resume,
            workers=os.cpu_count() or 1,
            on_progress=progress,
        )
    say(f"weights: {weights}\nwhat they gave on validation: {weights.with_name('validation.json')}")


def shaped(base: NetworkConfig, out: Path, *, single: bool, slices: int | None, fused: bool) -> NetworkConfig:
    """The network to be trained; as many categories as the samples in `out` have of their own.

    raises   ConfigurationError     slices without a middle, or not an odd number of threes where they are fused
    """
    from models.contract import ModelError
    from models.deeplesion.config import SINGLE, FusionConfig, numbered, offsets_of
    from models.deeplesion.fusion import images_of
    from models.deeplesion.samples import own_categories

    if slices is not None and slices % 2 == 0:
        raise ConfigurationError(f"--slices {slices}: an odd number has a middle")
    try:
        own = own_categories(out / "samples")
        categories = SINGLE if single else base.categories if own is None else numbered(own)
        network = dataclasses.replace(base, categories=categories, fusion=FusionConfig() if fused else None)
        if slices is not None:
            network = dataclasses.replace(network, offsets_mm=offsets_of(slices))
        images_of(network)
    except ModelError as exc:
        raise ConfigurationError(str(exc)) from exc
    return network


def _prepared(data: Path, out: Path) -> list[Path]:
    """Prepared volumes: those of `data`, or made from its DICOM files. raises ConfigurationError"""
    if found := sorted(data.rglob("*.npz")):
        return found
    made = out / "volumes"
    if not any(made.glob("*.npz")):
        say(f"preparing volumes in {made}")
        prepare_volumes(data, made, collection=data.name)
    if not (found := sorted(made.glob("*.npz"))):
        raise ConfigurationError(f"{data}: neither prepared volumes (*.npz) nor a CT series that makes one")
    return found


def prepare_volumes(data: Path, out: Path, *, collection: str) -> list[Path]:
    """Every CT series below `data` that makes an even volume, as `out`/<patient key>-<digest of the series UID>.npz."""
    from models.deeplesion.samples import save_volume
    from node.dicom.read.volume import read_volume

    out.mkdir(parents=True, exist_ok=True)
    series = [(patient, uid, paths) for patient, own in ct_series(data).items() for uid, paths in own.items()]
    written = []
    for patient_id, uid, paths in series:
        if len(paths) < LEAST_SLICES:
            continue
        try:
            volume = read_volume(paths)
        except NotEligible as exc:
            say(f"{paths[0].parent.name}: left out. {exc.reason}")
            continue
        if not volume.even_steps or volume.spacing_zyx_mm[0] > _LARGEST_STEP_MM or len(volume.voxels) < LEAST_SLICES:
            say(f"{paths[0].parent.name}: left out. Its slices are uneven, too few, or too far apart.")
            continue
        patient = short_digest(patient_id)
        target = out / f"{patient}-{short_digest(uid)}.npz"
        save_volume(target, in_air(volume), volume.spacing_zyx_mm, patient=patient, collection=collection)
        written.append(target)
    return written
