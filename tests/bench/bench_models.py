"""How fast the shipped networks are on this machine's processor or GPU, and how near to what it can do.

Each model runs as the node runs it, from HU or stored values to its result, in turns with its network alone, with the
same model on the CPU, and with non-local means of scikit-image. Nothing of the service is imported.

PYTHONPATH=.:tests python -m bench.bench_models --device cuda
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means
from torch import Tensor
from torch.nn import functional

from bench.turns import ON_THE_CPU, Bench, Call, again, gflop_of, machine_of, rounded, run
from models.catalogue import Loaded, catalogue
from models.clinreadnet.config import SIDE_PX
from models.clinreadnet.network import stored_units
from models.clinreadnet.run import BATCH as GRADED
from models.clinreadnet.run import GPU_BATCH as GRADED_ON_GPU
from models.contract import Acquisition, FloatArray, Radiograph, SourceRef, Volume
from models.deeplesion.config import RunConfig
from models.deeplesion.run import GPU_BATCH as SEARCHED_ON_GPU
from models.deeplesion.run import find, key_slices, positions_along_normal
from models.device import as_written
from models.diffusionxray.model import run_with_spread
from models.evaluation.table import Table
from models.lidnet.run import BATCH as DENOISED
from models.lidnet.run import GPU_BATCH as DENOISED_ON_GPU
from models.simulation.cases import draw_case

CPU = torch.device("cpu")
SPACING_MM = (1.0, 0.8, 0.8)
NOISE_HU, AIR_HU = 20.0, -1000.0
RADIOGRAPH_NOISE, HALF_RANGE = 25.0, 2048.0
PEER_PX = 512
"""Side of what non-local means are timed on; a larger image counts as so many of them."""
SHARES = {"lidnet-fast": 0.2, "deeplesion-fast": 0.5, "clinreadnet-fast": 0.65, "diffusionxray-fast": 1.0}
"""Of the time there is, what has passed when a model should be done."""


@dataclass(frozen=True)
class Sizes:
    """What is run.

    slices, scored      of the volume that is denoised and searched, of the one that is graded
    drawn               slices that are drawn; the volume is they, to and fro, with new noise
    cpu_slices          that the CPU is given beside a GPU
    batches             of the network alone
    matmul              side of the matrices whose product is the peak
    """

    slices: int = 300
    scored: int = 64
    side_px: int = 512
    radiograph_px: int = 2048
    drawn: int = 24
    cpu_slices: int = 4
    batches: int = 8
    matmul: int = 8192
    rounds: int = 3


ON_CPU = Sizes(slices=24, scored=8, radiograph_px=1024, batches=1, matmul=2048)
SMOKE = Sizes(
    slices=10, scored=3, side_px=448, radiograph_px=128, drawn=6, cpu_slices=2, batches=1, matmul=512, rounds=1
)


@lru_cache(maxsize=1)
def _drawn(sizes: Sizes) -> FloatArray:
    shape = (sizes.drawn, sizes.side_px, sizes.side_px)
    return draw_case("forbild-thorax", seed=0, shape_zyx=shape, spacing_zyx_mm=SPACING_MM, lesions=3).voxels


@lru_cache(maxsize=2)
def volume_of(slices: int, sizes: Sizes) -> Volume:
    """A drawn chest, to and fro, with new noise on every slice."""
    drawn = _drawn(sizes)
    there_and_back = np.concatenate([drawn, drawn[::-1]])
    rng = np.random.default_rng(0)
    voxels = there_and_back[np.arange(slices) % len(there_and_back)]
    for plane in voxels:
        plane += NOISE_HU * rng.standard_normal(plane.shape, np.float32)
    affine = np.diag([SPACING_MM[2], SPACING_MM[1], SPACING_MM[0], 1.0])[:, [2, 1, 0, 3]]
    origins = np.zeros((slices, 3))
    origins[:, 2] = np.arange(slices) * SPACING_MM[0]
    sources = tuple(SourceRef(f"1.2.{number}") for number in range(slices))
    return Volume(voxels, affine, SPACING_MM, origins, sources, Acquisition(modality="CT"))


def first_of(volume: Volume, slices: int) -> Volume:
    """The volume's first slices."""
    return Volume(
        volume.voxels[:slices],
        volume.affine,
        volume.spacing_zyx_mm,
        volume.slice_origins_mm[:slices],
        volume.sources[:slices],
        volume.acquisition,
    )


def radiograph_of(side_px: int) -> Radiograph:
    """12 bits: a smooth field with stripes like ribs, and noise."""
    y, x = np.mgrid[:side_px, :side_px].astype(np.float32) / side_px
    smooth = 1500 + 800 * np.sin(3 * x) * np.cos(2 * y) + 150 * np.sin(60 * (y + 0.3 * x * x))
    noisy = smooth + RADIOGRAPH_NOISE * np.random.default_rng(0).standard_normal(smooth.shape, np.float32)
    return Radiograph(np.rint(noisy).astype(np.float32), (0, 4095), SourceRef("1.2.3"), spacing_yx_mm=(0.2, 0.2))


def non_local_means(image: FloatArray, sd: float, *, units: float = 1.0) -> Call:
    """Of scikit-image, at its fastest, on the CPU."""
    quick = partial(denoise_nl_means, patch_size=5, patch_distance=5, h=0.8 * sd, sigma=sd, fast_mode=True)
    return Call(partial(quick, image[:PEER_PX, :PEER_PX].astype(np.float32)), units)


def lidnet_bench(device: torch.device, sizes: Sizes) -> Bench:
    """The denoiser: HU to HU."""
    loaded = catalogue()["lidnet-fast"].load(device)
    network: Any = loaded.network
    volume = volume_of(sizes.slices, sizes)
    few = first_of(volume, sizes.cpu_slices)
    batch = min(DENOISED_ON_GPU if device.type == "cuda" else DENOISED, sizes.slices)
    image = torch.from_numpy(volume.voxels[:batch, None]).to(device).contiguous(memory_format=torch.channels_last)
    gflop = gflop_of(lambda: network(image[:1]))
    peak = _precision(network.body.head.weight)
    alone = as_written()(again(lambda: network(image), sizes.batches))
    calls = {
        "as the node runs it": Call(lambda: loaded(volume), sizes.slices, gflop, peak),
        "network alone": Call(alone, batch * sizes.batches, gflop, peak),
        **_on_the_cpu(device, "lidnet-fast", lambda there: there(few), sizes.cpu_slices),
        "non-local means, scikit-image": non_local_means(volume.voxels[0], NOISE_HU),
    }
    note = f"{sizes.slices} slices of {sizes.side_px}², {gflop:.3g} GFLOP each, {batch} at once. Compared: HU."
    return Bench("LIDnet", "slice", calls, np.asarray, lambda: loaded(few), (note,))


def deeplesion_bench(device: torch.device, sizes: Sizes) -> Bench:
    """The detector: HU to lesions."""
    loaded = catalogue()["deeplesion-fast"].load(device)
    network: Any = loaded.network
    volume = volume_of(sizes.slices, sizes)
    few = first_of(volume, 3 * sizes.cpu_slices)
    batch = SEARCHED_ON_GPU if device.type == "cuda" else RunConfig().batch
    reach = network.config.slices // 2
    keys = key_slices(positions_along_normal(volume), RunConfig().step_mm)
    chosen = [min(max(key, reach), sizes.slices - 1 - reach) for key in keys[:batch]]
    hu = torch.from_numpy(np.stack([volume.voxels[key - reach : key + reach + 1] for key in chosen])).to(device)
    share = len(keys) / sizes.slices
    gflop = share * gflop_of(lambda: network.detect(hu[:1]))
    before = share * gflop_of(lambda: network.rpn_outputs(network.features(hu[:1])))
    peak, units = _precision(network.roi_head.scores.weight), len(chosen) * sizes.batches / share
    alone = as_written()(again(lambda: network.detect(hu), sizes.batches))
    outputs = as_written()(again(lambda: network.rpn_outputs(network.features(hu)), sizes.batches))

    def search(here: Loaded[Any], what: Volume) -> list[Any]:
        searched: Any = here.network
        return list(find(searched, what))

    calls = {
        "as the node runs it": Call(lambda: search(loaded, volume), sizes.slices, gflop, peak),
        "network alone": Call(alone, units, gflop, peak),
        "of it, up to the proposals": Call(outputs, units, before, peak),
        **_on_the_cpu(device, "deeplesion-fast", lambda there: search(there, few), 3 * sizes.cpu_slices),
        "non-local means, scikit-image": non_local_means(volume.voxels[0], NOISE_HU),
    }
    note = (
        f"{sizes.slices} slices of {sizes.side_px}² at {SPACING_MM[0]:g} mm: {len(keys)} key slices with {2 * reach}"
        f" neighbours, {gflop:.3g} GFLOP a slice, {batch} key slices at once. Compared: scores, the surest first."
    )
    return Bench("DeepLesion", "slice", calls, _scores, lambda: search(loaded, few), (note,))


def _scores(found: Sequence[Any]) -> NDArray[Any]:
    return np.array([one.score for one in found])


def clinreadnet_bench(device: torch.device, sizes: Sizes) -> Bench:
    """The quality network: HU to grades. raises ValueError where the volume is not one that it grades"""
    loaded = catalogue()["clinreadnet-fast"].load(device)
    network: Any = loaded.network
    volume = volume_of(sizes.scored, sizes)
    few = first_of(volume, sizes.cpu_slices)
    if reason := loaded(few).not_applicable:
        raise ValueError(reason)
    batch = min(GRADED_ON_GPU if device.type == "cuda" else GRADED, sizes.scored)
    around = (SIDE_PX - sizes.side_px) // 2
    air = functional.pad(torch.from_numpy(volume.voxels[:batch, None]), (around,) * 4, value=AIR_HU)
    x = stored_units(air).to(device)
    gflop, units = gflop_of(lambda: network(x[:1])), batch * sizes.batches
    alone = again(lambda: network(x), sizes.batches)
    calls = {
        "as the node runs it": Call(lambda: loaded(volume), sizes.scored, gflop, "float32"),
        "network alone": Call(as_written()(alone), units, gflop, "float32"),
        **_in_tf32(device, "network alone", Call(alone, units, gflop)),
        **_on_the_cpu(device, "clinreadnet-fast", lambda there: there(few), sizes.cpu_slices),
        "non-local means, scikit-image": non_local_means(volume.voxels[0], NOISE_HU),
    }
    note = f"{sizes.scored} slices of {SIDE_PX}², {gflop:.3g} GFLOP each, {batch} at once. Compared: scores, 0 to 4."
    return Bench("ClinReadNet", "slice", calls, lambda told: np.asarray(told.scores), lambda: loaded(few), (note,))


def diffusionxray_bench(device: torch.device, sizes: Sizes) -> Bench:
    """The restorer: stored values to stored values, without and with the map of uncertainty."""
    loaded = catalogue()["diffusionxray-fast"].load(device)
    network: Any = loaded.network
    radiograph = radiograph_of(sizes.radiograph_px)
    image = (torch.from_numpy(radiograph.pixels)[None, None] / HALF_RANGE - 1).to(device)
    time = torch.zeros(1, device=device)
    gflop = gflop_of(lambda: network.regressor(image))
    refiner = gflop_of(lambda: network.refiner(image, time))
    evaluations = network.config.sampling.samples * network.config.sampling.flow_steps
    several, times = gflop + evaluations * refiner, sizes.batches
    alone, refining = again(lambda: network.regressor(image), times), again(lambda: network.refiner(image, time), times)
    part = min(1.0, (PEER_PX / sizes.radiograph_px) ** 2)
    calls = {
        "as the node runs it": Call(lambda: loaded(radiograph), 1, gflop, "float32"),
        "with the map of uncertainty": Call(lambda: run_with_spread(network, radiograph), 1, several, "float32"),
        "regressor alone": Call(as_written()(alone), times, gflop, "float32"),
        "refiner alone": Call(as_written()(refining), times, refiner, "float32"),
        **_in_tf32(device, "regressor alone", Call(alone, times, gflop)),
        **_on_the_cpu(device, "diffusionxray-fast", lambda there: there(radiograph), 1),
        "non-local means, scikit-image": non_local_means(radiograph.pixels, RADIOGRAPH_NOISE, units=part),
    }
    note = (
        f"One image of {sizes.radiograph_px}²: {gflop:.3g} GFLOP for the regressor, and for the map {refiner:.3g} for"
        f" each of {evaluations} evaluations of the refiner. Compared: stored values of 12 bits."
    )
    return Bench(
        "DiffusionXRay", "image", calls, lambda told: np.asarray(told.pixels), lambda: loaded(radiograph), (note,)
    )


def _on_the_cpu(device: torch.device, name: str, work: Callable[[Loaded[Any]], object], units: int) -> dict[str, Call]:
    """The same model on the CPU, with all its threads; nothing where it is there already."""
    if device.type != "cuda":
        return {}
    there: Loaded[Any] = catalogue()[name].load(CPU)
    return {ON_THE_CPU: Call(lambda: work(there), units, warm=False)}


def _in_tf32(device: torch.device, name: str, call: Call) -> dict[str, Call]:
    """What float32 costs: the same, rounded; nothing where there is no TF32."""
    if device.type != "cuda":
        return {}
    return {f"{name}, rounded to TF32": replace(call, run=rounded()(call.run), peak="TF32")}


def _precision(parameter: Tensor) -> str:
    return "bf16" if parameter.dtype == torch.bfloat16 else "float32"


BENCHES: Mapping[str, Callable[[torch.device, Sizes], Bench]] = {
    "lidnet-fast": lidnet_bench,
    "deeplesion-fast": deeplesion_bench,
    "clinreadnet-fast": clinreadnet_bench,
    "diffusionxray-fast": diffusionxray_bench,
}


def run_all(
    device: torch.device, sizes: Sizes, *, seconds: float, out: Path | None, say: Callable[[str], None] = print
) -> list[Table]:
    """Every model that ships; one that fails says why, and the next has its turn. Tables are written as they come."""
    begun = perf_counter()
    machine = machine_of(device, sizes.matmul)
    say("; ".join(machine.notes()))
    tables: list[Table] = []
    for name, build in BENCHES.items():
        try:
            bench = build(device, sizes)
            say(f"{bench.title}: ready after {perf_counter() - begun:.1f} s")
            until = begun + seconds * SHARES[name]
            tables.append(run(bench, machine, rounds=sizes.rounds, until=until, say=say))
            say(tables[-1].markdown())
        except Exception:
            say(f"{name} failed\n{traceback.format_exc()}")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "speeds.md").write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
            told = json.dumps([table.data() for table in tables], indent=1, ensure_ascii=False)
            (out / "speeds.json").write_text(told + "\n", encoding="utf-8")
    say(f"{len(tables)} of {len(BENCHES)} models in {perf_counter() - begun:.1f} s")
    return tables


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which no further round begins")
    parser.add_argument("--smoke", action="store_true", help="everything once, in small")
    told = parser.parse_args(arguments)
    device = torch.device(told.device)
    sizes = SMOKE if told.smoke else Sizes() if device.type == "cuda" else ON_CPU
    tables = run_all(device, sizes, seconds=told.seconds, out=told.out, say=partial(print, flush=True))
    if len(tables) < len(BENCHES):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
