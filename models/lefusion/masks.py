"""DiffMask: shapes of lesions from a sphere, kept inside their organ.

source: dossier 6; the boundary at each step is the paper's, and not in its code
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import BoolArray, FloatArray, ModelError
from models.diffusionxray.schedule import Schedule
from models.lefusion.network import LesionUNet
from models.lefusion.samplers import Fields, Walk, sample

Centre = tuple[int, int, int]


def control_sphere(shape_zyx: tuple[int, int, int], centre: Centre, radius: int) -> BoolArray:
    """Voxels not farther than the radius from the centre, bool (D, H, W)."""
    axes = np.ogrid[tuple(slice(0, count) for count in shape_zyx)]
    squared = sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True))
    return np.asarray(squared <= radius**2)


def sphere_of(mask: BoolArray) -> tuple[Centre, int]:
    """Centre and radius of the control sphere that training shows for a mask: its centroid, its farthest voxel; whole
    voxels, the radius up.

    The released code cuts the radius down, so that its spheres leave the outermost voxels out.

    raises   ModelError     an empty mask
    """
    places: NDArray[np.int64] = np.argwhere(mask)
    if not len(places):
        raise ModelError("a lesion without a voxel has no control sphere")
    centroid = np.rint(places.mean(0)).astype(np.int64)
    radius = int(np.ceil(np.sqrt(((places - centroid) ** 2).sum(1).max())))
    z, y, x = (int(value) for value in centroid)
    return (z, y, x), radius


def coded(mask: BoolArray) -> FloatArray:
    """−1 outside, 1 inside."""
    return np.where(mask, np.float32(1), np.float32(-1))


def equivalent_diameter(mask: BoolArray) -> float:
    """Of the ball with as many voxels, in voxels."""
    return float((6 * np.count_nonzero(mask) / np.pi) ** (1 / 3))


def cleaned(drawn: FloatArray, organ: BoolArray) -> BoolArray:
    """Voxels above the middle, holes filled, the largest piece, inside the organ; empty where nothing was drawn.

    drawn    (D, H, W), −1 … 1
    """
    filled = ndimage.binary_fill_holes(drawn > 0) & organ
    pieces, count = ndimage.label(filled)
    if count == 0:
        return np.zeros(drawn.shape, bool)
    return np.asarray(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))


@torch.inference_mode()
def draw_mask(
    network: LesionUNet,
    sphere: BoolArray,
    organ: BoolArray,
    fields: Fields,
    *,
    path: Walk,
    schedule: Schedule,
    eta: float = 1.0,
) -> BoolArray:
    """One mask, bool (D, H, W); empty where the network drew none.

    sphere   the control sphere         organ   where a lesion may be: outside, every step is told that there is none
    """
    device = next(network.parameters()).device
    beside = torch.from_numpy(coded(sphere))[None, None].to(device)
    nothing = torch.full_like(beside, -1)
    inside = torch.from_numpy(organ)[None, None].to(device)

    def noise_in(state: torch.Tensor, time: int) -> torch.Tensor:
        told: torch.Tensor = network(torch.cat([state, beside], 1), torch.full((1,), float(time), device=device))
        return told

    drawn = sample(noise_in, path, nothing, inside, fields, schedule=schedule, eta=eta)
    return cleaned(drawn[0, 0].cpu().numpy(), organ)
