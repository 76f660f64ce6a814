"""`accept`: does the chain of this node find what is known to be there?"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from node.cli import home as homes
from node.cli.acceptance import Judgement, as_data, axes_words, change_since, judge, table_of
from node.cli.learning import Report, in_words, progress_bar
from node.cli.planting import Made, Organ, Wish, check, only_series, plant
from node.cli.studies import JSON
from node.cli.synthesise import DOSE, MASK, ORGAN, SEED, SEGMENT
from node.cli.words import NOTHING, complain, print_json, remark, say, table
from node.errors import ConfigurationError
from node.settings import VERSION

if TYPE_CHECKING:
    from models.contract import Findings, Volume
    from node.settings import Settings

COLUMNS = ("lesions", ">put in", ">found", ">missed", "share found [95 %]", ">contrast kept")
CAVEAT = (
    "Lesions drawn by formula, in one scan: the interval is over such lesions in such a scan, and says nothing about"
    " patients. The same before and after a change is what to look for."
)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Processes")(accept)


def accept(
    ctx: typer.Context,
    folder: Path = typer.Argument(..., exists=True, file_okay=False, help="CT of one patient, DICOM files."),
    lesions: int = typer.Option(16, "--lesions", min=1, max=50, help="How many; fewer where there is no room."),
    seed: int = SEED,
    organ: Organ = ORGAN,
    mask: Path | None = MASK,
    segment: int | None = SEGMENT,
    dose: float | None = DOSE,
    against: Path | None = typer.Option(
        None, "--against", exists=True, dir_okay=False, help="What an earlier `accept` of the same wrote to --out."
    ),
    least: float | None = typer.Option(
        None, "--least", min=0, max=1, help="Fail where a smaller share is found.", show_default=False
    ),
    out: Path | None = typer.Option(None, "--out", dir_okay=False, help="Write the result here too, as JSON."),
    as_json: bool = JSON,
) -> None:
    """Put lesions of known truth into a series, let this node's own analysis look for them, and compare by place.

    Nothing is sent or kept: the lesions go into copies, which are read, graded, searched and denoised as received
    images are, with this home's settings. The same series without lesions is searched too: what is marked there is no
    find.

    Exit code 0 where the search was done and something was found; 1 where not, where less than --least was found, or
    where fewer were found than --against. To accept an upgrade: once before it with --out, after it with --against.

    \b
    pacsnode --home DIR accept ./chest --out before.json
    pacsnode --home DIR accept ./chest --against before.json
    pacsnode --home DIR accept ./chest --dose 0.25 --least 0.3
    """
    settings = homes.load(ctx.obj)
    wish = Wish(lesions, seed, organ=organ, dose=dose, mask=mask, segment=segment, marking=False)
    check(wish)
    earlier = None if against is None else _earlier(against)
    paths = only_series(folder)
    with in_words(), progress_bar("reading") as progress:
        made = plant(paths, wish, progress)
        findings, before, volume = _analysed(made, settings, progress)
    judgement = judge(made.truth, volume, findings, before, lesion_change=_change(findings, volume))
    change = None if earlier is None else change_since(earlier, judgement)
    faults = _faults(findings, judgement, least)
    if change is not None and change.worse:
        faults.append(f"fewer are found than {against}: {change.words()}")
    said = _document(wish, made, findings, judgement, faults)
    if out is not None:
        _write(out, said)
    if as_json:
        print_json(said)
    else:
        _show(made, findings, judgement, organ)
        if change is not None:
            say(change.words())
    for fault in faults:
        complain(fault)
    if faults:
        raise typer.Exit(NOTHING)


def _analysed(made: Made, settings: Settings, progress: Report) -> tuple[Findings, Findings, Volume]:
    """Of the series with lesions, of that without, and the former as the node reads it."""
    from node.dicom.read.volume import read_volume
    from node.pipelines import models
    from node.pipelines.low_dose_ct import low_dose_ct

    networks = models.load(device=settings.device, threads=settings.threads)
    with tempfile.TemporaryDirectory() as place:
        files = []
        for name, content in made.images():
            files.append(Path(place) / name)
            files[-1].write_bytes(content)
        volume = read_volume(files, on_progress=partial(progress, "reading again"))
    # The networks are to be asked as of received images: what these say of themselves would keep them from grading.
    volume = replace(volume, acquisition=made.volume.acquisition)
    findings = low_dose_ct(volume, networks, partial(progress, "analysis, %"), least_quality=settings.least_quality)
    search = replace(networks, scorer=None, denoiser=None)
    before = low_dose_ct(replace(volume, voxels=made.plain), search, partial(progress, "the same without lesions, %"))
    return findings, before, volume


def _change(findings: Findings, volume: Volume) -> Any:
    denoised = next((image.array for image in findings.images), None)
    return None if denoised is None else denoised - volume.voxels


def _faults(findings: Findings, judgement: Judgement, least: float | None) -> list[str]:
    search = next((one for one in findings.analyses if one.looks_for), None)
    undone = [f"{one.name} {one.outcome}: {one.reason}" for one in findings.analyses if one.outcome != "done"]
    if search is None or search.outcome != "done":
        return ["lesions were not searched for", *undone]
    if not judgement.counted:
        return ["every place is marked without a lesion too: nothing can be said; try another --seed"]
    if not judgement.found:
        return ["nothing of what was put in is found"]
    if least is not None and judgement.share < least:
        return [f"{100 * judgement.share:.0f} % are found, and --least asks for {100 * least:.0f} %"]
    return []


def _show(made: Made, findings: Findings, judgement: Judgement, organ: Organ) -> None:
    table("", COLUMNS, table_of(judgement, organ))
    unclear = len(judgement.lesions) - len(judgement.counted)
    if unclear:
        say(f"{unclear} lie where something is marked without them too, and are not counted")
    false = f"{judgement.false_before} without the lesions, {judgement.false_after} with them"
    say(f"marks where no lesion was put in: {false}")
    if words := axes_words(judgement):
        say(words)
    for analysis in findings.analyses:
        said = f", {analysis.reason}" if analysis.reason else ""
        say(f"{analysis.name}: {analysis.outcome}{said}")
    for measured in findings.measurements:
        say(f"{measured.name[2]} ({measured.group}): {measured.value:g} {measured.unit[2]}")
    for words in made.assumed:
        remark(f"noise: the header does not say it believably, so {words} was assumed")
    remark(CAVEAT)


def _document(wish: Wish, made: Made, findings: Findings, judgement: Judgement, faults: list[str]) -> dict[str, Any]:
    return {
        "version": VERSION,
        "pipeline": f"{findings.pipeline} {findings.version}",
        "networks": sorted({f"{one.model.name} {one.model.version}" for one in findings.analyses if one.model}),
        "weights": findings.weights_digest,
        "organ": wish.organ,
        "seed": wish.seed,
        "dose": wish.dose,
        "assumed_of_the_dose": list(made.assumed),
        "analyses": {one.name: one.outcome for one in findings.analyses},
        "measurements": {f"{one.name[2]}, {one.group}": one.value for one in findings.measurements},
        **as_data(judgement),
        "faults": faults,
        "caveat": CAVEAT,
    }


def _earlier(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: a document that `accept` wrote is wanted") from exc
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: a document that `accept` wrote is wanted")
    return found


def _write(out: Path, said: dict[str, Any]) -> None:
    from models.weights import write_whole

    with in_words():
        write_whole((json.dumps(said, indent=2) + "\n").encode("utf8"), out)
