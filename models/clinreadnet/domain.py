"""What may be scored at all: axial CT of an adult's trunk, as the scanner made it, with a kernel for soft tissue.

Nothing else was in the training, and a number would look as sure there as it does here.
"""

from __future__ import annotations

import numpy as np

from models.clinreadnet.config import SIDE_PX, RunConfig
from models.contract import Acquisition, Volume
from models.evaluation.noise import body_mask
from models.simulation.kernels import known_kernel

SOFT_KERNELS = ("soft", "hann")
LEARNT_RECONSTRUCTIONS = ("TRUEFIDELITY", "DLIR", "AICE", "PRECISE IMAGE", "CLEARINFINITY")
REFORMATS = ("MPR", "MIP", "MINIP", "REFORMATTED", "AVERAGE", "LOCALIZER")
OTHER_PARTS = (
    "HEAD", "BRAIN", "SKULL", "FACE", "SINUS", "ORBIT", "JAW", "DENTAL", "EAR", "NECK", "CERVICAL", "CSPINE", "ARM",
    "SHOULDER", "ELBOW", "WRIST", "HAND", "FINGER", "EXTREMITY", "LEG", "FEMUR", "KNEE", "ANKLE", "FOOT", "TOE",
    "BREAST",
)  # fmt: skip
LOOKED_AT = 9
"""Slices on which the body's size is measured."""


def why_not(volume: Volume, config: RunConfig) -> str:
    """Why this series gets no score, in plain words; "" where it does."""
    return _by_header(volume.acquisition) or _by_grid(volume, config) or _by_image(volume, config)


def _by_header(told: Acquisition) -> str:
    kernel, part = told.kernel.upper(), told.body_part.upper().replace("_", " ")
    kinds = [word.upper() for word in told.image_type]
    if told.modality not in ("", "CT"):
        return f"made for CT, these images are {told.modality}"
    if kinds[:1] not in ([], ["ORIGINAL"]) or kinds[1:2] not in ([], ["PRIMARY"]):
        return f"made for images as the scanner makes them, these are {' '.join(kinds[:2]).lower()}"
    if reformat := next((kind for kind in kinds[2:] if kind in REFORMATS), None):
        return f"made for axial images as the scanner makes them, these are marked {reformat}"
    if any(part.startswith(word) or f" {word}" in part for word in OTHER_PARTS):
        return f"made for chest and abdomen, the body part of these images is {part.lower()}"
    if name := next((name for name in LEARNT_RECONSTRUCTIONS if name in kernel), None):
        return f"not made for images that a network reconstructed ({name})"
    return _by_kernel(told.kernel.strip())


def _by_kernel(name: str) -> str:
    """A name that nobody knows may stand for any sharpness; where there is none, the image itself must do."""
    kernel = known_kernel(name)
    if name and kernel is None:
        return f"made for soft-tissue kernels, and whether {name} is one is not known"
    if kernel not in (*SOFT_KERNELS, None):
        return f"made for soft-tissue kernels, {name} is a sharper one"
    return ""


def _by_grid(volume: Volume, config: RunConfig) -> str:
    down, across = volume.spacing_zyx_mm[1:]
    low, high = config.pixels_mm
    if max(volume.voxels.shape[1:]) > SIDE_PX:
        rows, columns = volume.voxels.shape[1:]
        return f"made for slices of up to {SIDE_PX} × {SIDE_PX} pixels, these have {columns} × {rows}"
    if abs(down - across) > 0.01 * across or not low <= across <= high:
        return f"made for square pixels of {low:g} to {high:g} mm, these are {across:.2f} × {down:.2f} mm"
    normal = np.cross(volume.affine[:3, 2], volume.affine[:3, 1])
    tilt = np.degrees(np.arccos(np.clip(abs(normal[2]) / np.linalg.norm(normal), 0, 1)))
    if tilt > config.most_tilt_deg:
        return f"made for axial slices, these are turned by {tilt:.0f}°"
    return ""


def _by_image(volume: Volume, config: RunConfig) -> str:
    chosen = np.unique(np.linspace(0, len(volume.voxels) - 1, LOOKED_AT).round().astype(int))
    pixel_cm2 = volume.spacing_zyx_mm[1] * volume.spacing_zyx_mm[2] / 100
    areas = []
    for index in chosen:
        plane = volume.voxels[index]
        if volume.padding is not None:
            plane = np.where(volume.padding[index], np.float32(-1000), plane)
        areas.append(np.count_nonzero(body_mask(plane)) * pixel_cm2)
    area = float(np.median(areas))
    if area < config.least_body_cm2:
        return f"made for an adult's trunk, what is seen here is smaller ({area:.0f} cm² in the median slice)"
    return ""
