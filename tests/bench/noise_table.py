"""Noise of water discs by photons, size and kernel, beside the values of the simulation dossier, section 3.3.

PYTHONPATH=.:tests python -m bench.noise_table
"""

from __future__ import annotations

import torch

from models.simulation.dose import Scanner, measure
from models.simulation.geometry import ParallelBeam
from models.simulation.kernels import Kernel
from models.simulation.projection import MU_WATER_PER_MM, filtered_back_project, hounsfield

GEOMETRY = ParallelBeam(views=984, channels=736, pitch_mm=0.7)
MIDDLE_PX, SPACING_MM = 64, 0.7
ELECTRONIC_SIGMA = 10.0
DOSSIER: dict[tuple[float, float], tuple[float, float]] = {
    (200, 1e6): (12.1, 6.8), (200, 5e5): (16.4, 7.7), (200, 2.5e5): (23.2, 9.8), (200, 1e5): (36.6, 14.0),
    (320, 1e6): (36.7, 13.9), (320, 5e5): (53.5, 19.2), (320, 2.5e5): (77.0, 27.3), (320, 1e5): (136, 48.5),
    (400, 1e6): (77.1, 26.0), (400, 5e5): (120, 40.6), (400, 2.5e5): (184, 63.3), (400, 1e5): (408, 136),
}  # fmt: skip
"""(diameter in mm, photons) → standard deviation at the centre in HU, Ram-Lak and Hann."""


def centre_noise(diameter_mm: float, photons: float, kernel: Kernel, *, repeats: int, seed: int) -> tuple[float, float]:
    """Standard deviation over repeated scans and mean, HU, in the middle 45 mm of the disc."""
    scanner = Scanner(GEOMETRY, kernel, photons, ELECTRONIC_SIGMA, crosstalk=0.0)
    chord = 2 * ((diameter_mm / 2) ** 2 - GEOMETRY.coordinates().square()).clamp_min(0).sqrt()
    lines = (MU_WATER_PER_MM * chord).expand(repeats, GEOMETRY.views, -1)
    noisy = measure(lines, scanner, fraction=1.0, seed=seed)
    image = hounsfield(
        filtered_back_project(noisy, GEOMETRY, shape=(MIDDLE_PX, MIDDLE_PX), spacing_mm=SPACING_MM, kernel=kernel)
    )
    return float(image.std(0).square().mean().sqrt()), float(image.mean())


def main() -> None:
    torch.set_num_threads(1)
    print("diameter  photons   Ram-Lak: here  dossier   Hann: here  dossier   mean HU (Hann)")
    for (diameter, photons), (ramp, hann) in DOSSIER.items():
        sharp, _ = centre_noise(diameter, photons, "ramp", repeats=6, seed=1)
        soft, mean = centre_noise(diameter, photons, "hann", repeats=6, seed=1)
        print(f"{diameter:8.0f} {photons:8.0e} {sharp:14.1f} {ramp:8.1f} {soft:12.1f} {hann:8.1f} {mean:12.1f}")


if __name__ == "__main__":
    main()
