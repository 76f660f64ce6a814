"""`train diffusionxray`: the restorer of radiographs in steps, each of which leaves what the next one reads.

A run is one folder: pictures, the two degraders, their pairs, the networks, and at last the file that ships.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from node.cli.learning import PRESET, RESUME, SEED, STEPS, in_words, progress_bar
from node.cli.series import LEAST_SLICES, longest_series, upright_voxels
from node.cli.words import remark, say
from node.errors import ConfigurationError, NotEligible

if TYPE_CHECKING:
    from models.diffusionxray.config import Shape, Stage
    from models.diffusionxray.network import RestorationUNet

HELP = """DiffusionXRay in steps: degraders that learn from unpaired pictures, pairs by them, and restorers.

All steps share one folder, --out, and each can be repeated: it goes on from where it was.

\b
pacsnode train diffusionxray prepare --images ./cxr --spacing 0.2 --ct ./ct --drawn 40 --out ./run
pacsnode train diffusionxray munit --out ./run
pacsnode train diffusionxray prior --out ./run
pacsnode train diffusionxray pairs --out ./run
pacsnode train diffusionxray regressor --out ./run
pacsnode train diffusionxray refiner --out ./run
pacsnode train diffusionxray bundle --out ./run
pacsnode evaluate diffusionxray --data ./run --weights ./run/restorer/weights.safetensors --out ./run

ddpm is the paper's restorer, and a baseline is a regressor of another name: regressor --name bicubic --mix bicubic=1
"""
OUT = typer.Option(..., "--out", file_okay=False, help="The run's folder, the same in all steps.")
MIX = typer.Option(
    None,
    "--mix",
    help="NAME=SHARE: physics, bicubic, identity, munit or prior (repeatable). Without it: those of the shipped one.",
)
WORKERS = typer.Option(
    0, "--workers", min=0, help="Processes that make pictures ahead: for a GPU, which is faster than they are made."
)
KEEP_COARSE = typer.Option(
    True,
    "--keep-coarse/--all-scales",
    help="Learnt pairs take the clean crop's coarse structure, so that the network leaves that alone;"
    " or stay as the degraders made them, as in the paper.",
)


def register(train: typer.Typer) -> None:
    """Add the group of steps to the group `train`."""
    group = typer.Typer(help=HELP, no_args_is_help=True)
    for step in (prepare, munit, prior, pairs, regressor, refiner, ddpm, bundle):
        group.command(step.__name__)(step)
    train.add_typer(group, name="diffusionxray")


def prepare(
    images: list[Path] | None = typer.Option(
        None, "--images", exists=True, file_okay=False, help="Radiographs as PNG or JPEG, bright = dense (repeatable)."
    ),
    spacing: float | None = typer.Option(
        None, "--spacing", min=0.01, max=2.0, help="Of their pixels, mm; such files do not say it.", show_default=False
    ),
    dicom: list[Path] | None = typer.Option(
        None, "--dicom", exists=True, file_okay=False, help="Chest radiographs as DICOM files, CR or DX (repeatable)."
    ),
    split: Literal["train", "validation", "test"] | None = typer.Option(
        None, "--split", help="Of all these images. Without it: by patient.", show_default=False
    ),
    ct: list[Path] | None = typer.Option(
        None, "--ct", exists=True, file_okay=False, help="Chest CT as DICOM files: DRRs are made of them (repeatable)."
    ),
    drawn: int = typer.Option(0, "--drawn", min=0, help="Drawn chests, each a radiograph and a DRR."),
    out: Path = OUT,
) -> None:
    """1. Pictures of both domains: radiographs and drawn ones (high quality), DRRs of CT (low quality)."""
    from models.diffusionxray.data import prepare_images
    from models.diffusionxray.known import prepare_drawn
    from node.cli.training_radiographs import prepare_radiographs

    if images and spacing is None:
        raise ConfigurationError("--images: --spacing says how large a pixel is, and the files do not")
    if not images and not dicom and not ct and not drawn:
        raise ConfigurationError("nothing to prepare: one of --images, --dicom, --ct and --drawn is wanted")
    folder = _pictures(out)
    with in_words(), progress_bar() as progress:
        for source in images or []:
            count = prepare_images(
                source, folder, spacing_mm=spacing or 0.0, split=split, left_out=_left_out,
                on_progress=partial(progress, source.name),
            )  # fmt: skip
            say(f"{source.name}: {count} radiographs")
        for source in dicom or []:
            count = prepare_radiographs(
                source, folder, split=split, left_out=_left_out, on_progress=partial(progress, source.name)
            )
            say(f"{source.name}: {count} radiographs")
        for source in ct or []:
            say(f"{source.name}: {_prepare_drrs(source, folder)} DRRs")
        prepare_drawn(folder, range(drawn), on_progress=partial(progress, "drawn chests"))
    say(f"pictures: {folder}")


def _left_out(file: str, why: str) -> None:
    remark(f"{file}: left out, {why}")


def munit(
    out: Path = OUT, preset: Literal["cpu", "gpu"] = PRESET, seed: int = SEED, steps: int | None = STEPS,
    resume: bool = RESUME, workers: int = WORKERS,
) -> None:  # fmt: skip
    """2a. The degrader by unpaired translation (MUNIT-LQ): content of a radiograph, style of a DRR."""
    from models.device import of_preset
    from models.diffusionxray.munit import HALF, MunitConfig
    from models.diffusionxray.munit_train import CPU_TRAINING, GPU_TRAINING, train_munit

    config, training = {
        "cpu": (MunitConfig(), CPU_TRAINING),
        "gpu": (HALF, GPU_TRAINING),
    }[preset]
    training = training if steps is None else dataclasses.replace(training, steps=steps)
    with in_words(), progress_bar() as progress:
        weights = train_munit(
            config, _unpaired(out, seed), out / "munit", training=training, seed=seed, resume=resume,
            on_progress=progress, device=of_preset(preset), workers=workers,
        )  # fmt: skip
    say(f"weights: {weights}")


def prior(
    out: Path = OUT, preset: Literal["cpu", "gpu"] = PRESET, seed: int = SEED, steps: int | None = STEPS,
    resume: bool = RESUME, workers: int = WORKERS,
) -> None:  # fmt: skip
    """2b. The degrader by a diffusion prior of low-quality pictures (DDPM-LQ); it needs no pairs."""
    from models.device import of_preset
    from models.diffusionxray.config import TRAINING
    from models.diffusionxray.prior import train_prior

    training = TRAINING[preset] if steps is None else dataclasses.replace(TRAINING[preset], steps=steps)
    with in_words(), progress_bar() as progress:
        weights = train_prior(
            _unpaired(out, seed), out / "prior", training=training, seed=seed, resume=resume, on_progress=progress,
            device=of_preset(preset), workers=workers,
        )  # fmt: skip
    say(f"weights: {weights}")


def pairs(
    out: Path = OUT,
    by: list[str] | None = typer.Option(None, "--by", help="munit or prior (repeatable). Without it: both."),
    count: int = typer.Option(400, "--count", min=1, help="Crops that each degrades."),
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
) -> None:
    """3. Pairs by the degraders. Those that lost or exaggerated a nodule, or moved anatomy, are dropped and counted."""
    from models.device import of_preset
    from models.diffusionxray.arms import LEARNT, WEIGHTS
    from models.diffusionxray.config import CropConfig
    from models.diffusionxray.data import load_pictures
    from models.diffusionxray.pairs import make_bank
    from models.diffusionxray.retention import Checked

    if unknown := set(by or []) - set(LEARNT):
        raise ConfigurationError(f"--by {', '.join(sorted(unknown))}: one of {', '.join(LEARNT)} is wanted")
    for name in dict.fromkeys(by or LEARNT):
        weights = _trained(out, name, WEIGHTS)
        with in_words(), progress_bar() as progress:
            checked = Checked(LEARNT[name](weights, of_preset(preset)))
            kept, tried = make_bank(
                checked, load_pictures(_pictures(out), split="train"), out / "pairs" / name, CropConfig(), count=count,
                seed=seed, made_by={"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}, keep=checked.keep,
                on_progress=partial(progress, name),
            )  # fmt: skip
        dropped = ", ".join(f"{reason} {number}" for reason, number in sorted(checked.dropped.items())) or "none"
        say(f"{name}: {kept} pairs of {tried} crops; dropped now: {dropped}")


def regressor(
    out: Path = OUT,
    name: str = typer.Option("regressor", "--name", help="Its folder in the run: another one for a baseline."),
    mix: list[str] | None = MIX,
    keep_coarse: bool = KEEP_COARSE,
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    resume: bool = RESUME,
    workers: int = WORKERS,
) -> None:
    """4. The conservative restoration."""
    _train("regressor", out, name, mix, (preset, seed, steps, resume, keep_coarse, workers))


def refiner(
    out: Path = OUT,
    name: str = typer.Option("refiner", "--name", help="Its folder in the run."),
    of: str = typer.Option("regressor", "--regressor", help="Folder of the regressor that it starts from."),
    mix: list[str] | None = MIX,
    keep_coarse: bool = KEEP_COARSE,
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    resume: bool = RESUME,
    workers: int = WORKERS,
) -> None:
    """5. The flow from the conservative restoration to a sharp one, in a few steps."""
    from models.diffusionxray.arms import WEIGHTS, network_of

    with in_words():
        start = network_of(_trained(out, of, WEIGHTS), "regressor")
    _train("refiner", out, name, mix, (preset, seed, steps, resume, keep_coarse, workers), start)


def ddpm(
    out: Path = OUT,
    name: str = typer.Option("ddpm", "--name", help="Its folder in the run."),
    shape: Literal["shipped", "paper", "paper-full-skip"] = typer.Option(
        "shipped", "--shape", help="The shipped size, or the published 91 million parameters, which want a GPU."
    ),
    mix: list[str] | None = MIX,
    keep_coarse: bool = KEEP_COARSE,
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    resume: bool = RESUME,
    workers: int = WORKERS,
) -> None:
    """The paper's conditional diffusion model, to compare with; it is no part of what ships."""
    _train("ddpm", out, name, mix, (preset, seed, steps, resume, keep_coarse, workers), shape=shape)


def bundle(
    out: Path = OUT,
    name: str = typer.Option("restorer", "--name", help="Its folder in the run."),
    of: str = typer.Option("regressor", "--regressor", help="Folder of the regressor."),
    by: str = typer.Option("refiner", "--refiner", help="Folder of the refiner that was trained with it."),
) -> None:
    """6. Regressor and refiner as one file of weights, with what is known of both."""
    from models.diffusionxray.arms import WEIGHTS, bundled
    from models.diffusionxray.facts import write_facts
    from models.weights import save_weights

    with in_words():
        both, facts = bundled(_trained(out, of, WEIGHTS), _trained(out, by, WEIGHTS))
        weights = out / name / WEIGHTS
        sha256 = save_weights(both, weights)
        write_facts(facts, weights)
    say(
        f"weights: {weights}\nsha256: {sha256}\n"
        f"measure them: pacsnode evaluate diffusionxray --data {out} --weights {weights} --out {out}"
    )


def _train(
    stage: Stage,
    out: Path,
    name: str,
    mix: list[str] | None,
    how: tuple[Any, ...],
    start: RestorationUNet | None = None,
    *,
    shape: Shape = "shipped",
) -> None:
    """One network. how: preset, seed, steps, resume, keep_coarse, workers. start: of the refiner; shape: of the ddpm"""
    from models.diffusionxray.config import SHAPES, TRAINING, CropConfig, fitting
    from models.diffusionxray.data import load_pictures
    from models.diffusionxray.model import FAST
    from models.diffusionxray.pairs import MIX as SHIPPED
    from models.diffusionxray.pairs import MixedPairs
    from models.diffusionxray.train import train

    preset, seed, steps, resume, keep_coarse, workers = how
    training = TRAINING[preset] if steps is None else dataclasses.replace(TRAINING[preset], steps=steps)
    config = dataclasses.replace(FAST, networks={**FAST.networks, "ddpm": SHAPES[shape]})
    training = fitting(training, config.networks[stage])
    shares = _shares(mix) or SHIPPED
    with in_words(), progress_bar() as progress:
        pictures = load_pictures(_pictures(out), split="train")
        store = MixedPairs(pictures, shares, out / "pairs", CropConfig(), seed=seed, keep_coarse=keep_coarse)
        learns_from = {
            "mix": dict(shares),
            "keep_coarse": keep_coarse,
            "patients": len({one.key for one in pictures}),
            "pictures": len(pictures),
        }
        weights = train(
            config, stage, store, out / name, preset=preset, seed=seed, regressor=start, training=training,
            learns_from=learns_from, resume=resume, on_progress=progress, workers=workers,
        )  # fmt: skip
    say(f"weights: {weights}")


def _unpaired(out: Path, seed: int) -> Any:
    """Crops of both domains, of training patients. raises ModelError"""
    from models.diffusionxray.config import CropConfig
    from models.diffusionxray.data import load_pictures
    from models.diffusionxray.unpaired import UnpairedCrops

    hq, lq = (load_pictures(_pictures(out), domain=domain, split="train") for domain in ("hq", "lq"))
    return UnpairedCrops(hq, lq, CropConfig(), seed=seed)


def _pictures(out: Path) -> Path:
    return out / "pictures"


def _trained(out: Path, name: str, file: str) -> Path:
    """raises ConfigurationError where that step has not been taken"""
    if not (weights := out / name / file).is_file():
        raise ConfigurationError(f"{weights}: not there; train {name} first")
    return weights


def _shares(said: list[str] | None) -> dict[str, float]:
    """raises ConfigurationError"""
    shares: dict[str, float] = {}
    for one in said or []:
        name, _, share = one.partition("=")
        if name in shares:
            raise ConfigurationError(f"--mix {one}: {name} has its share already")
        try:
            shares[name] = float(share)
        except ValueError as exc:
            raise ConfigurationError(f"--mix {one}: NAME=SHARE is wanted, as physics=0.5") from exc
    return shares


def _prepare_drrs(folder: Path, out: Path) -> int:
    """A DRR of each patient's longest series; patients already there are passed over. How many are there.

    raises   ConfigurationError     not one
    """
    from models.diffusionxray.data import Picture, save_picture, split_of
    from models.simulation.radiograph_cases import drr_case
    from node.dicom.read.volume import read_volume

    collection = folder.resolve().name
    known = f"*/{glob.escape(collection)}"
    for key, paths in longest_series(folder):
        if any((out / "lq").glob(f"{known}-{key}-*.npz")):
            continue
        try:
            volume = read_volume(paths)
            voxels = upright_voxels(volume)
        except NotEligible as exc:
            _left_out(f"patient {key}", exc.reason)
            continue
        made = drr_case(voxels, volume.spacing_zyx_mm)
        save_picture(Picture(key, collection, made.low, made.spacing_mm, "lq", split_of(key)), out)
    if not (there := len(list((out / "lq").glob(f"{known}-*.npz")))):
        raise ConfigurationError(f"{folder}: no axial CT series of {LEAST_SLICES} images or more")
    return there
