"""The simulator beside an independent one, XCIST CatSim (gecatsim 1.6.8, BSD-3): simulation dossier 3.4, item 7.

PYTHONPATH=.:tests python -m bench.agree_with_catsim      where gecatsim is installed beside this project; minutes

It writes CatSim's numbers to catsim.json, against which tests/models/simulation/test_dose.py holds this simulator.

Both scan the same solids of water with the same fan, 70 keV, the same photons per ray, electronic noise and optical
crosstalk. The sinograms of both go through the same reconstruction, which test_projection.py proves against closed
forms. Not compared here: spectrum, beam hardening, bowtie, focal spot, scatter.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.simulation.dose import Scanner, measure
from models.simulation.geometry import FanBeam
from models.simulation.projection import (
    MU_WATER_PER_MM,
    attenuation,
    filtered_back_project,
    forward_project,
    hounsfield,
)

Disc = tuple[float, float, float, float]
"""(x, y, radius) in mm and density over water; nested or apart, the inner ones later."""
PHANTOMS: dict[str, list[Disc]] = {
    "water disc": [(0, 0, 100, 1.0)],
    "body": [
        (0, 0, 140, 1.0), (-75, 0, 48, 0.26), (80, 5, 44, 0.26), (8, -45, 28, 1.05),
        (0, 62, 17, 1.4), (22, 42, 11, 1.05), (-95, 75, 12, 0.92),
    ],
}  # fmt: skip
PLACES: dict[str, list[tuple[float, float, float]]] = {
    "water disc": [(0, 0, 30)],
    "body": [(8, -45, 20), (-75, 0, 25), (80, 5, 25), (0, 92, 9), (0, 62, 9)],
}
"""(x, y, radius): where the mean and the noise are read."""

KEV, GAIN, ELECTRONIC_E, CROSSTALK = 70.0, 15.0, 5000.0, 0.01
FAN = FanBeam(views=500, channels=900, pitch_mm=1.0, source_mm=540, detector_mm=950, channel_offset=0.25)
SIDE, SPACING_MM = 256, 0.8
REPEATS = 6
RECORD = Path(__file__).with_name("catsim.json")


def catsim_lines(discs: list[Disc], folder: Path, *, seed: int) -> tuple[Tensor, float, float]:
    """Line integrals (1, views, channels), photons per ray in air, and water's attenuation (1/mm)."""
    import gecatsim
    from gecatsim.pyfiles.GetMu import GetMu

    (folder / "phantom.ppm").write_text(_ppm(discs))
    samples = Path(gecatsim.__file__).parent / "examples" / "cfg"
    names = ("Phantom_Sample_Analytic", "Scanner_Sample_generic", "Protocol_Sample_axial", "Physics_Sample")
    simulation = gecatsim.CatSim(*(str(samples / name) for name in names))
    simulation.resultsName = str(folder / "scan")
    simulation.phantom.filename = str(folder / "phantom.ppm")
    simulation.scanner.detectorRowsPerMod = simulation.scanner.detectorRowCount = 1
    simulation.scanner.eNoise = ELECTRONIC_E
    protocol = simulation.protocol
    protocol.bowtie = []
    protocol.viewsPerRotation = protocol.viewCount = FAN.views
    protocol.stopViewId = FAN.views - 1
    physics = simulation.physics
    physics.monochromatic = KEV
    physics.crosstalkCallback = physics.lagCallback = ""
    physics.col_crosstalk_opt, physics.row_crosstalk_opt = CROSSTALK, 0.0
    for name in ("srcXSampleCount", "srcYSampleCount", "viewSampleCount", "rowSampleCount"):
        setattr(physics, name, 1)
    np.random.seed(seed)  # CatSim draws from this generator
    simulation.run_all()
    air = gecatsim.rawread(str(folder / "scan.air"), [FAN.channels], "float")
    prep = gecatsim.rawread(str(folder / "scan.prep"), [FAN.views, FAN.channels], "float")
    water = float(GetMu("water", KEV)[0]) / 10
    return torch.from_numpy(prep.copy())[None], float(np.mean(air)) / (GAIN * KEV), water


def own_lines(discs: list[Disc], photons: float) -> Tensor:
    """The same from this project, (REPEATS, views, channels)."""
    lines = forward_project(attenuation(paint(discs, 416, 0.8)), 0.8, FAN).expand(REPEATS, -1, -1)
    scanner = Scanner(FAN, "hann", photons, ELECTRONIC_E / (GAIN * KEV), CROSSTALK)
    return measure(lines, scanner, fraction=1.0, seed=1)


def paint(discs: list[Disc], side: int, spacing_mm: float) -> Tensor:
    """HU (1, side, side), edges supersampled."""
    fine = 4
    axis = ((torch.arange(side * fine) + 0.5) / fine - side / 2) * spacing_mm
    density = torch.zeros(side * fine, side * fine)
    for x, y, radius, value in discs:
        density[(axis[:, None] - y) ** 2 + (axis - x) ** 2 < radius**2] = value
    return torch.nn.functional.avg_pool2d((density - 1)[None] * 1000, fine)


def reconstruct(lines: Tensor, fan: FanBeam = FAN) -> Tensor:
    """HU (B, side, side)."""
    image = filtered_back_project(lines, fan, shape=(SIDE, SIDE), spacing_mm=SPACING_MM, kernel="hann")
    return hounsfield(image)


def inside(place: tuple[float, float, float]) -> Tensor:
    """Pixels of a disc (x, y, radius)."""
    axis = (torch.arange(SIDE) - (SIDE - 1) / 2) * SPACING_MM
    return (axis[:, None] - place[1]) ** 2 + (axis - place[0]) ** 2 < place[2] ** 2


def spectrum_peak(noise: Tensor) -> float:
    """Frequency (1/mm) at which the noise power is greatest: top of a parabola through the radial means around it."""
    middle = noise[:, SIDE // 2 - 64 : SIDE // 2 + 64, SIDE // 2 - 64 : SIDE // 2 + 64]
    taper = torch.hann_window(128)
    power = torch.fft.fft2(middle * taper[:, None] * taper).abs().square().mean(0)
    f = torch.fft.fftfreq(128, SPACING_MM)
    radius = torch.hypot(f[:, None], f)
    lows = np.arange(0.08, 0.44, 0.04)
    rings = [float(power[(radius >= low) & (radius < low + 0.04)].mean()) for low in lows]
    curve, slope, _ = np.polyfit(lows + 0.02, rings, 2)
    return float(-slope / (2 * curve))


def _ppm(discs: list[Disc]) -> str:
    lines = ["materialList = {'water'};"]
    for number, (x, y, radius, density) in enumerate(discs, start=1):
        lines += [
            f"object.center({number},:) = [{x} {y} 0];",
            f"object.half_axes({number},:) = [{radius} {radius} 50];",
            f"object.euler_angs({number},:) = [0 0 0];",
            f"object.density({number}) = {density};",
            f"object.type({number}) = 2;",
            f"object.material({number}) = 1;",
            f"object.axial_lims({number},:) = [0 0];",
            f"object.shape({number}) = 0;",
            f"object.clip{{{number}}} = [];",
            "",
        ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Read:
    """What is read of several scans of one phantom.

    places          (mean, standard deviation over the scans), HU, at each of `PLACES`
    peak_per_mm     frequency of the greatest noise power
    """

    photons: float
    places: list[tuple[float, float]]
    peak_per_mm: float


def read(images: Tensor, name: str, photons: float) -> Read:
    """Of scans (B, SIDE, SIDE), HU."""
    spots = [images[:, inside(place)] for place in PLACES[name]]
    places = [(float(spot.mean()), float(spot.std(0).square().mean().sqrt())) for spot in spots]
    return Read(photons, places, spectrum_peak(images - images.mean(0)))


def catsim(name: str) -> Read:
    """CatSim's scans."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        scans = [catsim_lines(PHANTOMS[name], Path(folder), seed=seed) for seed in range(REPEATS)]
    _, photons, water = scans[0]
    # CatSim counts channels the other way round, and its x and y both point against ours.
    lines = torch.cat([lines for lines, _, _ in scans]).flip(-1) * (MU_WATER_PER_MM / water)
    return read(reconstruct(lines, replace(FAN, channel_offset=-FAN.channel_offset)).flip(1, 2), name, photons)


def own(name: str, photons: float) -> Read:
    """This project's."""
    return read(reconstruct(own_lines(PHANTOMS[name], photons)), name, photons)


def recorded() -> dict[str, Read]:
    """What CatSim said when it was last asked."""
    return {name: Read(**values) for name, values in json.loads(RECORD.read_text(encoding="utf8")).items()}


def main() -> None:
    """Ask CatSim, compare, and keep its answers for the test that has no CatSim."""
    torch.set_num_threads(1)
    print("photons per ray are CatSim's; HU: CatSim, here; ratio: here over CatSim")
    theirs = {name: catsim(name) for name in PHANTOMS}
    RECORD.write_text(json.dumps({name: asdict(one) for name, one in theirs.items()}, indent=1) + "\n", encoding="utf8")
    for name, their in theirs.items():
        ours = own(name, their.photons)
        print(f"{name}: {their.photons:.0f} photons per ray")
        for place, (mean, sd), (own_mean, own_sd) in zip(PLACES[name], their.places, ours.places, strict=True):
            print(f"  at {place!s:16} mean {mean:8.1f} {own_mean:8.1f} HU   noise {sd:6.1f} {own_sd:6.1f} HU   "
                  f"ratio {own_sd / sd:.3f}")  # fmt: skip
        peaks = their.peak_per_mm, ours.peak_per_mm
        print(f"  noise power: peak at {peaks[0]:.3f} {peaks[1]:.3f} /mm   ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
