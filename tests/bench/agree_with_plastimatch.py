"""The projector of radiographs beside an independent one, plastimatch drr (Siddon's path lengths, BSD-like).

PYTHONPATH=.:tests python -m bench.agree_with_plastimatch      where plastimatch is installed; half a minute

Both send rays from the same point through the same voxels to the same pixels; compared are line integrals (g/cm²).
plastimatch takes voxels as boxes of one value; here planes are interpolated, so edges differ by parts of a voxel and
smooth things do not. Densities stay below where bone begins. Not compared: spectrum, scatter, blur, noise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from models.contract import FloatArray
from models.simulation.drr import View, areal_densities
from models.simulation.phantom import chest_phantom

VIEW = View(detector_px=(192, 224), pixel_mm=1.6, source_mm=1800.0, gap_mm=180.0)
SPACING_MM = (2.0, 2.0, 2.0)
SHAPE_ZYX = (150, 130, 180)
MISSING = "plastimatch is not installed: apt-get install -y --no-install-recommends plastimatch"


def balls() -> FloatArray:
    """Balls of several densities off the middle, edges of one voxel, HU."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE_ZYX, SPACING_MM, strict=True))
    density = np.zeros(SHAPE_ZYX)
    for centre, radius, value in (
        ((0, 0, 0), 90, 0.3), ((50, -30, -60), 25, 0.7), ((-60, 40, 70), 20, 0.7), ((-20, -60, -20), 12, 0.5),
    ):  # fmt: skip
        away = np.sqrt((z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2)
        density += value * np.clip((radius - away) / SPACING_MM[0] + 0.5, 0, 1)
    return ((density - 1) * 1000).astype(np.float32)


def smooth() -> FloatArray:
    """Gaussians in air: no edges, so that both ways of sampling agree."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE_ZYX, SPACING_MM, strict=True))
    density = np.zeros(SHAPE_ZYX)
    for centre, width in (((0, 0, 0), 40), ((40, -30, -50), 20), ((-50, 40, 40), 15)):
        away2 = (z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2
        density += 0.4 * np.exp(-away2 / (2 * width**2))
    return ((density - 1) * 1000).astype(np.float32)


def chest() -> FloatArray:
    """Without its bone, which this project's projector keeps apart."""
    voxels = chest_phantom(seed=3, nodules=2, shape_zyx=SHAPE_ZYX, spacing_zyx_mm=SPACING_MM).voxels
    return np.minimum(voxels, np.float32(150))


def by_plastimatch(density: FloatArray, program: str, folder: Path) -> FloatArray:
    """Line integrals, g/cm² (rows, columns), of densities in g/cm³ (Z, Y, X). Its sizes are (columns, rows)."""
    volume = folder / "volume.mha"
    volume.write_bytes(_mha(density))
    rows, columns = VIEW.detector_px
    options = {
        "--algorithm": "exact", "--hu-conversion": "none", "--output-format": "pfm", "--nrm": "0 1 0", "--vup": "0 0 1",
        "--sad": f"{VIEW.source_mm - VIEW.gap_mm}", "--sid": f"{VIEW.source_mm}", "--isocenter": "0 0 0",
        "--dim": f"{columns} {rows}", "--detector-size": f"{columns * VIEW.pixel_mm} {rows * VIEW.pixel_mm}",
        "--output": str(folder / "drr"),
    }  # fmt: skip
    command = [program, "drr", *(part for option in options.items() for part in option), str(volume)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return _pfm(next(folder.glob("drr*.pfm")))[:, ::-1]  # it looks from the source


def _mha(density: FloatArray) -> bytes:
    origin = [-(n - 1) / 2 * step for n, step in zip(SHAPE_ZYX, SPACING_MM, strict=True)]
    lines = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": " ".join(map(str, origin[::-1])),
        "ElementSpacing": " ".join(map(str, SPACING_MM[::-1])), "DimSize": " ".join(map(str, SHAPE_ZYX[::-1])),
        "ElementType": "MET_FLOAT", "ElementDataFile": "LOCAL",
    }  # fmt: skip
    header = "".join(f"{key} = {value}\n" for key, value in lines.items())
    return header.encode() + np.ascontiguousarray(density, "<f4").tobytes()


def _pfm(path: Path) -> FloatArray:
    _, size, order, data = path.read_bytes().split(b"\n", 3)
    columns, rows = map(int, size.split())
    return np.frombuffer(data, "<f4" if float(order) < 0 else ">f4").reshape(rows, columns)


PHANTOMS: dict[str, Callable[[], FloatArray]] = {"smooth": smooth, "balls": balls, "chest": chest}


def main() -> int:
    torch.set_num_threads(1)
    program = shutil.which("plastimatch")
    if program is None:
        print(MISSING)
        return 2
    print("line integrals, g/cm², inside the shadow (above 2 % of the greatest); here over plastimatch")
    print("phantom      here    there    ratio   rms diff  rms rel    99 % rel     shift (px)")
    for name, paint in PHANTOMS.items():
        voxels = paint()
        ours = areal_densities(voxels, SPACING_MM, VIEW)[0].numpy()
        with tempfile.TemporaryDirectory() as folder:
            theirs = by_plastimatch(np.maximum(1 + voxels / 1000, 0), program, Path(folder))
        inside = theirs > 0.02 * theirs.max()
        relative = np.abs(ours - theirs)[inside] / theirs[inside]
        slopes = np.stack([slope[inside] for slope in np.gradient(theirs)], 1)
        shift = -np.linalg.lstsq(slopes, (ours - theirs)[inside], rcond=None)[0]
        a, b = ours[inside].mean(), theirs[inside].mean()
        rms = np.sqrt(np.mean((ours - theirs)[inside] ** 2))
        print(f"{name:8} {a:8.3f} {b:8.3f} {a / b:8.5f} {rms:9.4f} {np.sqrt(np.mean(relative**2)):8.5f} "
              f"{np.percentile(relative, 99):9.5f} {shift[0]:8.4f}{shift[1]:8.4f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
