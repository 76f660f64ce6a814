"""One evaluation: a restorer and arms beside it, measured part by part on pictures and chests never trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from models.diffusionxray.arms import (
    LEARNT,
    NOISELESS,
    UNSEEN,
    degraders_of,
    methods_of,
    restorer_methods,
    restorer_of,
    sampler_of,
    unseen,
)
from models.diffusionxray.audit import audit
from models.diffusionxray.coverage import coverage
from models.diffusionxray.data import Picture, load_pictures
from models.diffusionxray.evaluate import (
    Degrader,
    EvaluationConfig,
    Method,
    Report,
    Shown,
    Values,
    arms_table,
    evaluate,
    most_changed,
    restoration_table,
    speed_table,
)
from models.diffusionxray.known import cases_in, chest_pictures, rays_in
from models.diffusionxray.model import Restorer
from models.diffusionxray.pairs import BICUBIC, MIX
from models.diffusionxray.shifted import shifted, shifted_intervals
from models.evaluation.table import Table

RESTORER = "restorer"
SETTING_CHESTS = 4
"""At least, on which the audit's detector is set; or a third as many as are audited."""
SAMPLED_CHESTS = 24
"""Whose intervals are measured under each way of exposing them: each takes several samples."""
CHEST_CROP_PX = 128
Tables = tuple[Table, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is compared, and on what; each method measures one part and returns its tables.

    methods     the restorer as it ships first      trainings   arm → its methods      degraders   known to trainings
    """

    restorer: Restorer
    methods: Mapping[str, Method]
    trainings: Mapping[str, Sequence[str]]
    degraders: Mapping[str, Degrader]
    test: Sequence[Picture]
    validation: Sequence[Picture]
    what: EvaluationConfig
    seed: int
    report: Report
    say: Callable[[str], None]

    @classmethod
    def of(
        cls,
        run: Path,
        restorer: Path,
        files: Mapping[str, Mapping[str, Path]],
        *,
        steps: Sequence[int],
        what: EvaluationConfig,
        seed: int,
        device: torch.device,
        report: Report,
        say: Callable[[str], None],
    ) -> Comparison:
        """From files of weights.

        run, restorer   folder of the training run, whose pictures and degraders are used; weights of the restorer
        files           arm → label → weights
        steps           of the refiner, beside those that ship
        say             told what is not measured and why, and the widening that was found
        raises   ModelError     no pictures, or weights that are damaged or others
        """
        network = restorer_of(restorer, device)
        methods, trainings = _methods(network, files, steps, device)
        test, validation = (load_pictures(run / "pictures", split=split) for split in ("test", "validation"))
        degraders = degraders_of(run, device)
        return cls(network, methods, trainings, degraders, test, validation, what, seed, report, say)

    @property
    def every(self) -> dict[str, Degrader]:
        """All degradations, one that nothing was trained on too."""
        return {**self.degraders, UNSEEN: unseen}

    def first(self, count: int) -> dict[str, Method]:
        """The restorer as it ships, and what stands next to it."""
        return dict(list(self.methods.items())[:count])

    def restoration(self) -> Tables:
        """Every method under every degradation."""
        found = evaluate(
            self.methods, self.every, self.test, self.validation, what=self.what, seed=self.seed,
            on_progress=self.report,
        )  # fmt: skip
        return (*found.tables, *self._between_arms(found.values))

    def nodules(self, folder: Path, count: int) -> Tables:
        """Nodules of known truth, in so many drawn chests; some more are for the detector to be set on."""
        if not count:
            return ()
        extra = max(SETTING_CHESTS, count // 3)
        known = cases_in(folder, count + extra, on_progress=partial(self.report, "drawing chests"))
        setting = [(case.absent, case.spacing_mm) for case in known[count:]]
        return audit(self.first(2), self.every, known[:count], setting, seed=self.seed, on_progress=self.report)

    def intervals(self) -> Tables:
        """Calibrated on validation and held to test pictures, under what adds noise and is in the shipped mix."""
        guard = self.restorer.config.guard
        wanted = math.ceil(round(1 / guard.alpha, 9)) - 1
        patients = len({one.key for one in self.validation})
        if min(patients, self.what.most) < wanted:
            used = min(patients, self.what.most)
            self.say(f"no intervals: {patients} validation patients, {used} used, {wanted} are wanted")
            return ()
        known = {name: one for name, one in self.degraders.items() if name in MIX and name not in NOISELESS}
        found = coverage(
            sampler_of(self.restorer), known, {UNSEEN: unseen}, self.validation, self.test, guard, what=self.what,
            seed=self.seed, on_progress=self.report,
        )  # fmt: skip
        self.say(f"widening that holds: {found.widening:.4g}")
        return found.tables

    def on_chests(self, folder: Path, count: int) -> Tables:
        """Drawn chests: other physics, and where there are arms, all of them under what arms are trained on."""
        if not count:
            return ()
        rays = rays_in(folder, count, on_progress=partial(self.report, "drawing chests for other physics"))
        return (*self._other_physics(rays), *(self._arms_on(rays) if self.trainings else ()))

    def _other_physics(self, rays: Sequence[Path]) -> Tables:
        """Each chest exposed in several ways; intervals of the first of them, as each takes several samples."""
        guard, sampled = self.restorer.config.guard, rays[:SAMPLED_CHESTS]
        return (
            shifted(self.first(1), rays, seed=self.seed, on_progress=self.report),
            shifted_intervals(
                sampler_of(self.restorer), sampled, guard, seed=self.seed, on_progress=self.report
            ),
        )  # fmt: skip

    def _arms_on(self, rays: Sequence[Path]) -> Tables:
        """Many patients, and truth free of noise."""
        wanted = [*self.first(1), *(name for names in self.trainings.values() for name in names)]
        known = {name: by for name, by in self.degraders.items() if name == BICUBIC or name.startswith(tuple(LEARNT))}
        what = EvaluationConfig(crop_px=CHEST_CROP_PX, most=len(rays), filters=())
        found = evaluate(
            {name: self.methods[name] for name in wanted}, known, chest_pictures(rays), self.validation, what=what,
            seed=self.seed, on_progress=lambda doing, done, total: self.report(f"drawn chests, {doing}", done, total),
        )  # fmt: skip
        told = restoration_table(found.values, {}, of="drawn chests")
        return (told, *self._between_arms(found.values, on="drawn chests"))

    def _between_arms(self, values: Values, *, on: str = "") -> Tables:
        return (arms_table(values, self.trainings, on=on),) if len(self.trainings) > 1 else ()

    def speed(self) -> Tables:
        """Of every method, as this machine has it."""
        self.report("speed", 0, 1)
        return (speed_table(self.methods, side_px=self.what.crop_px),)

    def most_changed(self) -> list[Shown]:
        """What the figure shows."""
        self.report("figure", 0, 1)
        return most_changed(next(iter(self.methods.values())), self.every, self.test, what=self.what, seed=self.seed)


def _methods(
    restorer: Restorer, files: Mapping[str, Mapping[str, Path]], steps: Sequence[int], device: torch.device
) -> tuple[dict[str, Method], dict[str, list[str]]]:
    """The restorer as it ships first, then its regressor, other steps, and the other arms; and the methods of each arm.

    raises   ModelError
    """
    sampling = restorer.config.sampling
    ships = sampling.returned_steps
    methods = restorer_methods(RESTORER, restorer, list(dict.fromkeys([ships, 0, sampling.flow_steps, *steps])))
    trainings: dict[str, list[str]] = {}
    for name, several in files.items():
        for label, file in several.items():
            found = methods_of(label, file, device, steps=(ships, 0))
            methods.update(found)
            for method in found:
                trainings.setdefault(name + method.removeprefix(label), []).append(method)
    return methods, trainings
