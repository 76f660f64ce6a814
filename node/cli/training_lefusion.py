"""`train lefusion`: the synthesiser of lesions in steps, each of which leaves what the next one reads.

A run is one folder: prepared lesions, the network of textures, and that of shapes.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Literal

import typer

from node.cli.learning import PRESET, RESUME, SEED, STEPS, in_words, progress_bar
from node.cli.series import longest_series, upright_voxels
from node.cli.words import say
from node.errors import ConfigurationError, NotEligible

HELP = """LeFusion in steps: lesions in chests, the network of their texture, and that of their shapes.

All steps share one folder, --out, and each can be repeated: it goes on from where it was.

\b
pacsnode train lefusion prepare --drawn 12 --ct ./chests --test-ct ./other-chests --out ./run
pacsnode train lefusion texture --out ./run
pacsnode train lefusion mask --out ./run
pacsnode evaluate lefusion --data ./run --out ./run
pacsnode synthesise ./patient --by ./run --out ./synthetic --lesions 5
"""
OUT = typer.Option(..., "--out", file_okay=False, help="The run's folder, the same in all steps.")
WORKERS = typer.Option(0, "--workers", min=0, help="Processes that make batches ahead.")
LESIONS, TEXTURE, MASK = "lesions", "texture", "mask"
_TEST_EVERY = 3


def register(train: typer.Typer) -> None:
    """Add the group of steps to the group `train`."""
    group = typer.Typer(help=HELP, no_args_is_help=True)
    for step in (prepare, texture, mask):
        group.command(step.__name__)(step)
    train.add_typer(group, name="lefusion")


def prepare(
    drawn: int = typer.Option(0, "--drawn", min=0, help="Drawn chests for training; a third as many more for tests."),
    ct: list[Path] | None = typer.Option(
        None, "--ct", exists=True, file_okay=False, help="Chest CT as DICOM files, for training (repeatable)."
    ),
    test_ct: list[Path] | None = typer.Option(
        None, "--test-ct", exists=True, file_okay=False, help="The same for tests: other patients (repeatable)."
    ),
    lesions: int = typer.Option(24, "--lesions", min=1, help="In each chest, one at a time."),
    out: Path = OUT,
) -> None:
    """1. Simulated nodules in drawn and real chests. Those for tests have other chests and other shapes."""
    from models.lefusion.data import prepare_drawn

    if not drawn and not ct and not test_ct:
        raise ConfigurationError("nothing to prepare: one of --drawn, --ct and --test-ct is wanted")
    folder = out / LESIONS
    with in_words(), progress_bar() as progress:
        splits: tuple[tuple[Literal["train", "test"], int], ...] = (
            ("train", drawn),
            ("test", -(-drawn // _TEST_EVERY)),
        )
        for split, chests in splits:
            report = partial(progress, f"drawn chests, {split}")
            made = prepare_drawn(folder, split, chests=chests, lesions=lesions, on_progress=report)
            say(f"drawn chests, {split}: {made} new lesions")
        for source in ct or []:
            _prepare_real(source, folder, "train", lesions)
        for source in test_ct or []:
            _prepare_real(source, folder, "test", lesions)
    say(f"lesions: {folder}")


def texture(
    out: Path = OUT,
    name: str = typer.Option(TEXTURE, "--name", help="Its folder in the run: another one for an ablation."),
    joint: bool = typer.Option(
        False, "--joint", help="Two classes in one network, ground glass and solid part, a channel each."
    ),
    focus: Literal["lesion", "crop", "everywhere"] = typer.Option(
        "lesion",
        "--focus",
        help="The loss: each lesion's own voxels; the same over the crop's, as published; or all voxels of the crop.",
    ),
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    resume: bool = RESUME,
    workers: int = WORKERS,
) -> None:
    """2. What is inside of a given mask, from noise, in keeping with the surroundings and with a histogram."""
    from models.device import of_preset
    from models.lefusion.config import TRAINING
    from models.lefusion.data import SHAPES, CropStore, histograms_of, load_crops
    from models.lefusion.synthesis import write_histograms
    from models.lefusion.train import network_for, train

    training = dataclasses.replace(TRAINING["texture"][preset], focus=focus)
    training = training if steps is None else dataclasses.replace(training, steps=steps)
    with in_words(), progress_bar() as progress:
        regions = load_crops(out / LESIONS, "train")
        facts = {
            "preset": preset,
            "classes": 2 if joint else 1,
            "lesions": len(regions),
            "chests": sorted({region.key for region in regions}),
            "shapes": SHAPES["train"],
        }
        weights = train(
            network_for("texture", preset, classes=2 if joint else 1), "texture",
            CropStore(regions, classes=2 if joint else 1, seed=seed), out / name, training=training, seed=seed,
            facts=facts, resume=resume, on_progress=progress, device=of_preset(preset), workers=workers,
        )  # fmt: skip
        write_histograms(histograms_of(regions, classes=2 if joint else 1), weights.parent)
    say(f"weights: {weights}")


def mask(
    out: Path = OUT,
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    resume: bool = RESUME,
    workers: int = WORKERS,
) -> None:
    """3. Shapes of lesions from a sphere (DiffMask)."""
    from models.device import of_preset
    from models.lefusion.config import TRAINING
    from models.lefusion.data import SHAPES, ShapeStore
    from models.lefusion.train import network_for, train

    training = TRAINING["mask"][preset]
    training = training if steps is None else dataclasses.replace(training, steps=steps)
    with in_words(), progress_bar() as progress:
        weights = train(
            network_for("mask", preset), "mask", ShapeStore(seed=seed), out / MASK, training=training, seed=seed,
            facts={"preset": preset, "shapes": SHAPES["train"]}, resume=resume, on_progress=progress,
            device=of_preset(preset), workers=workers,
        )  # fmt: skip
    say(f"weights: {weights}")


def _prepare_real(folder: Path, out: Path, split: Literal["train", "test"], lesions: int) -> None:
    """Lesions in the longest series of each patient; what cannot be used is said and left out."""
    from models.contract import ModelError
    from models.lefusion.data import prepare_chest
    from node.dicom.read.volume import read_volume

    other = "test" if split == "train" else "train"
    for key, paths in longest_series(folder):
        if any((out / split).glob(f"{key}-*.npz")):
            continue
        if any((out / other).glob(f"{key}-*.npz")):
            raise ConfigurationError(f"{folder}: a patient there is among those for {other} already")
        try:
            volume = read_volume(paths)
            made = prepare_chest(upright_voxels(volume), volume.spacing_zyx_mm, key, out, split, lesions=lesions)
        except (NotEligible, ModelError) as exc:
            say(f"{paths[0].parent.name}: left out. {exc}")
            continue
        say(f"{paths[0].parent.name}, {split}: {made} lesions")
