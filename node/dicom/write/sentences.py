"""What results say in words: short English sentences that a radiologist can read aloud."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from models.contract import Analysis, Code, Findings, Lesion, Measurement, ModelIdentity, Score
from node.dicom.write.objects import SeriesEntry, Stamp, StudyEntry

_WARNINGS = (
    "not done",
    "withheld",
    "failed",
    "Not processed",
    "Not reported",
    "is switched off",
    "is on trial",
    "Not looked",
    "No analysis",
    "Nothing was done",
    "Poor images",
)
_MOST_RUNS = 6
"""Stretches of images that a sentence names; more are counted."""
_MOST_LESIONS_FIRST = 6
"""On a page: more would push off it what was not done, and the cautions."""


def count(number: int, noun: str) -> str:
    """ "1 image", "2 images", "2 series"."""
    if number == 1 or noun == "series":
        return f"{number} {noun}"
    return f"{number} {noun[:-1]}es" if noun.endswith("is") else f"{number} {noun}s"


def is_warning(text: str) -> bool:
    """Whether the sentence says that something was not done."""
    return any(word in text for word in _WARNINGS)


def conclusion(study: StudyEntry) -> list[str]:
    """What a reader must know if nothing else is read."""
    failed = [entry for entry in study.series if entry.outcome == "failed"]
    sentences = [study.missing] if study.missing else []
    sentences += [*_marked(study), *_nothing_found(study), *_undone(study)]
    withheld = [entry for entry in study.series if entry.outcome == "withheld"]
    sentences += dict.fromkeys(entry.reason for entry in withheld)
    searched = any(map(_searched, study.series))
    if not searched and withheld and not failed:
        sentences.append("This report says nothing about findings.")
    elif not searched:
        broken = failed or any(one.outcome == "failed" for entry in study.series for one in _analyses(entry))
        why = "no such analysis came to its end" if broken else "no such analysis was run"
        sentences.append(f"Not looked for disease: {why}. This report says nothing about findings.")
    if poor := sum(len(score.poor) for entry in study.series if entry.findings for score in entry.findings.scores):
        meaning = ": that nothing is marked there says little" if searched else ""
        sentences.append(f"{count(poor, 'image')} of poor quality{meaning}.")
    if not failed and not withheld and not any(map(_worked_on, study.series)):
        received = _series(study.series)
        which = "the series" if received == "1 series" else f"any of the {received}"
        sentences.append(f"No analysis was suitable for {which} received.")
    if failed:
        sentences.append(f"AI processing failed for {_names(failed)}. Read the images as received.")
    return sentences


def _series(entries: Sequence[SeriesEntry]) -> str:
    """How many: images of one series that met different fates are several entries of it."""
    return count(len({entry.series_instance_uid for entry in entries}), "series")


def _marked(study: StudyEntry) -> list[str]:
    """How many lesions are marked: by series, since series of one study often show the same ones."""
    marked = [(entry, len(entry.findings.lesions)) for entry in study.series if entry.findings]
    marked = [(entry, lesions) for entry, lesions in marked if lesions]
    if not marked:
        return []
    judged = "Each one needs a reader's judgement."
    if len(marked) == 1:
        ((_, lesions),) = marked
        if lesions == 1:
            return ["1 possible lesion is marked. It needs a reader's judgement."]
        return [f"{count(lesions, 'possible lesion')} are marked. {judged}"]
    by_series = ", ".join(f"{short_name(entry)}: {lesions}" for entry, lesions in marked)
    return [f"Possible lesions are marked in {len(marked)} series ({by_series}); they may be the same ones. {judged}"]


def _nothing_found(study: StudyEntry) -> list[str]:
    """Of each analysis that looked for something, where it found nothing."""
    empty: dict[tuple[str, str], list[SeriesEntry]] = {}
    for entry in study.series:
        for analysis in _searched(entry):
            if entry.findings and not entry.findings.lesions:
                empty.setdefault((analysis.name, analysis.looks_for), []).append(entry)
    sentences = []
    for (name, looks_for), entries in sorted(empty.items()):
        where = "" if len(entries) == len(study.series) else f" in {_names(entries)}"
        sentences.append(_found_nothing(name, looks_for, where))
    return sentences


def _undone(study: StudyEntry) -> list[str]:
    """What failed or was withheld, and which series were not searched beside others that were."""
    searches = {analysis.name for entry in study.series for analysis in _searched(entry)}
    undone: dict[tuple[str, str], list[SeriesEntry]] = {}
    for entry in study.series:
        for one in _analyses(entry):
            if one.outcome in ("failed", "withheld") or (one.outcome == "not done" and one.name in searches):
                undone.setdefault((one.name, one.outcome), []).append(entry)
    return [f"{capital(name)} {outcome} in {_names(entries)}." for (name, outcome), entries in undone.items()]


def _found_nothing(name: str, looks_for: str, where: str = "") -> str:
    """No search finds all that it looks for, and that is not to be read as health."""
    return f"{capital(name)} found nothing{where}. It looks only for {looks_for}, and misses some of them."


def _searched(entry: SeriesEntry) -> list[Analysis]:
    """The analyses that looked for something in this series, and came to their end."""
    return [analysis for analysis in _analyses(entry) if analysis.looks_for and analysis.outcome == "done"]


def _analyses(entry: SeriesEntry) -> tuple[Analysis, ...]:
    return entry.findings.analyses if entry.findings else ()


def _worked_on(entry: SeriesEntry) -> bool:
    """Whether anything was done or tried: it may have come to a pipeline and suited none of its analyses."""
    if entry.findings is None:
        return entry.outcome == "processed"
    return any(analysis.outcome != "not done" for analysis in entry.findings.analyses)


def of_study(study: StudyEntry, stamp: Stamp) -> list[str]:
    """Which images this is about, and which earlier report it replaces."""
    images = sum(entry.images for entry in study.series)
    sentences = [f"Revision {stamp.revision}: {count(images, 'image')} in {_series(study.series)} received."]
    if stamp.replaces is not None:
        late = f" because {count(stamp.new_images, 'more image')} arrived" if stamp.new_images else ""
        earlier = f"results of revision {stamp.replaces}" if study.missing else "earlier results"
        sentences.append(f"This report replaces revision {stamp.replaces}{late}. Do not use the {earlier}.")
    return sentences + [_stop(note) for note in study.notes]


def of_series(entry: SeriesEntry, image_numbers: Sequence[int]) -> list[str]:
    """One series: the decision with its reason, then what was done.

    image_numbers       of each slice, as a viewer shows them
    """
    name = series_name(entry)
    if entry.outcome == "not eligible":
        return [f"{name}: Not processed. {_stop(entry.reason)}"]
    if entry.outcome == "withheld":
        return [f"{name}: Not reported. {_stop(entry.reason)}"]
    if entry.outcome == "failed":
        sentences = [f"{name}: AI processing failed. {_stop(entry.reason)}"]
    else:
        what = "processed" if _worked_on(entry) else "Nothing was done"
        sentences = [f"{name}: {what}. {_stop(entry.reason)}".strip()]
    if entry.findings is not None:
        sentences += of_findings(entry.findings, image_numbers)
    return sentences


def series_name(entry: SeriesEntry) -> str:
    number = "without number" if entry.number is None else str(entry.number)
    description = f' "{" ".join(entry.description.split())}"' if entry.description.strip() else ""
    role = f", {entry.role}" if entry.role and entry.role.upper() != entry.modality.upper() else ""
    image = f", {entry.image}" if entry.image else ""
    return (
        f"Series {number}{description}{image} ({entry.modality or 'no modality'}, {count(entry.images, 'image')}{role})"
    )


def short_name(entry: SeriesEntry) -> str:
    """ "series 3"."""
    return f"series {'without number' if entry.number is None else entry.number}"


def _names(entries: Sequence[SeriesEntry]) -> str:
    return ", ".join(dict.fromkeys(map(short_name, entries)))


def of_findings(findings: Findings, image_numbers: Sequence[int]) -> list[str]:
    """Lesions, analyses done and not done, cautions, numbers."""
    sentences = [of_lesion(number, lesion, image_numbers) for number, lesion in enumerate(findings.lesions, start=1)]
    sentences += [of_analysis(analysis) for analysis in findings.analyses]
    sentences += [_stop(note) for note in findings.notes]
    sentences += of_measurements(findings.measurements)
    sentences += of_scores(findings.scores, image_numbers)
    sentences += of_checks(findings)
    return sentences + [_stop(f"{one.title}, as a map. {one.explanation}") for one in findings.maps]


def for_page(findings: Findings, image_numbers: Sequence[int]) -> tuple[list[str], list[str], list[str]]:
    """What a reader must see, what was done, and the rest without the checks, for a page that may not hold all of it.

    The cautions have their place before what was done; what its network was trained on is among the rest, and so are
    the last ones of many lesions.
    """
    lesions = [of_lesion(number, lesion, image_numbers) for number, lesion in enumerate(findings.lesions, start=1)]
    more = len(lesions) - _MOST_LESIONS_FIRST
    if more > 0:
        marked = f"{len(lesions)} possible lesions are marked: the first {_MOST_LESIONS_FIRST} here, all in the report."
        lesions = [marked, *lesions[:_MOST_LESIONS_FIRST]]
    elif not lesions:
        lesions = [
            _found_nothing(a.name, a.looks_for) for a in findings.analyses if a.looks_for and a.outcome == "done"
        ]
    undone = [of_analysis(one) for one in findings.analyses if one.outcome != "done"]
    done = [one for one in findings.analyses if one.outcome == "done"]
    must = [*lesions, *undone]
    told = [*(_outcome(one) for one in done), *of_scores(findings.scores, image_numbers)]
    cautions = [_stop(note) for note in findings.notes]
    said = [*must, *cautions, *told, *(of_analysis(one) for one in done), *of_checks(findings)]
    trained = [f"Network {one.model.name}: {training}" for one in done if one.model and (training := _training(one))]
    return must, told, [*trained, *(text for text in of_findings(findings, image_numbers) if text not in said)]


def of_checks(findings: Findings) -> list[str]:
    """What derived images had to pass."""
    return [
        _stop(f"Check of the AI {image.kind} images, {name}: {words}")
        for image in findings.images
        for name, words in image.checks.items()
    ]


def of_analysis(analysis: Analysis) -> str:
    """What became of it, why, and what its network was trained on."""
    training = _training(analysis) if analysis.outcome == "done" else ""
    return f"{_outcome(analysis)} {training}".rstrip()


def _outcome(analysis: Analysis) -> str:
    model = analysis.model
    by = "" if model is None else f" Network {model.name} {model.version}."
    reason = "" if not analysis.reason else f" {_stop(analysis.reason)}"
    return f"{capital(analysis.name)} {analysis.outcome}.{reason}{by}"


def _training(analysis: Analysis) -> str:
    return _stop(analysis.model.training) if analysis.model is not None and analysis.model.training else ""


def of_measurements(measurements: Iterable[Measurement]) -> list[str]:
    """A sentence per measured quantity, its values side by side: "Noise: 17.2 HU (as received), 8.1 HU (denoised)"."""
    together: dict[Code, list[Measurement]] = {}
    for measurement in measurements:
        together.setdefault(measurement.name, []).append(measurement)
    sentences = []
    for name, group in together.items():
        values = ", ".join(f"{quantity(m.value, m.unit)}{_of_images(m.group)}" for m in group)
        methods = sorted({m.method for m in group if m.method})
        how = f" Measured: {'; '.join(methods)}." if methods else ""
        sentences.append(f"{capital(name[2])}: {values}.{how}")
    return sentences


def of_scores(scores: Iterable[Score], image_numbers: Sequence[int]) -> list[str]:
    """One sentence for all scores of one network, then which images are poor."""
    together: dict[tuple[str, tuple[float, float], ModelIdentity], list[Score]] = {}
    for score in scores:
        together.setdefault((score.applies_to, score.scale, score.model), []).append(score)
    sentences = []
    for (applies_to, (low, high), model), group in together.items():
        values = ", ".join(f"{_small(s.name[2])} {s.value:.1f}{_on_image(s.slice_index, image_numbers)}" for s in group)
        sentence = f"{capital(images_called(applies_to))}, on a scale from {number(low)} to {number(high)}: {values}."
        notes = [_stop(s.note) for s in group if s.note]
        sentences.append(" ".join([sentence, f"Network {model.name} {model.version}.", *notes]))
        sentences += [of_poor(s, image_numbers) for s in group if s.poor_below is not None]
    return sentences


def images_called(group: str) -> str:
    """What a reader calls the images that numbers are of."""
    return "images as received" if group == "input" else f"{group} images"


def _of_images(group: str) -> str:
    return f" ({'as received' if group == 'input' else group})" if group else ""


def of_poor(score: Score, image_numbers: Sequence[int]) -> str:
    if not score.poor:
        return f"No image is of poor quality (below {score.poor_below:g})."
    runs = in_runs(score.poor, image_numbers)
    more = f" and {len(runs) - _MOST_RUNS} more stretches" if len(runs) > _MOST_RUNS else ""
    return f"Poor images (quality below {score.poor_below:g}): {', '.join(runs[:_MOST_RUNS])}{more}."


def in_runs(slices: Sequence[int], image_numbers: Sequence[int]) -> list[str]:
    """Slices 0, 1, 2, 5 as a viewer numbers their images: "1-3", "6"."""
    runs: list[list[int]] = []
    for index in slices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    ends = [(_image_number(run[0], image_numbers), _image_number(run[-1], image_numbers)) for run in runs]
    return [f"{first}" if first == last else f"{first}-{last}" for first, last in ends]


def _image_number(slice_index: int, image_numbers: Sequence[int]) -> int:
    return image_numbers[slice_index] if slice_index < len(image_numbers) else slice_index + 1


def _on_image(slice_index: int | None, image_numbers: Sequence[int]) -> str:
    return "" if slice_index is None else f" (image {_image_number(slice_index, image_numbers)})"


def of_lesion(place: int, lesion: Lesion, image_numbers: Sequence[int]) -> str:
    side = f", {lesion.laterality[2].lower()}" if lesion.laterality else ""
    known = lesion.slice_index < len(image_numbers)
    where = f"image {image_numbers[lesion.slice_index]}" if known else f"slice {lesion.slice_index + 1}"
    kind = "" if lesion.category[2] == "Lesion" else f"{lesion.category[2]}, "
    return (
        f"Lesion {place}: {kind}{lesion.site[2]}{side}, {where}. "
        f"{lesion.long_axis_mm:.1f} x {lesion.short_axis_mm:.1f} mm, {_millilitres(lesion.volume_mm3)} ml. "
        f"Score {lesion.score:.2f}, shown from {lesion.operating_point:.2f} on. "
        f"Seen in the {' and the '.join(map(images_called, lesion.seen_in))}."
    )


def _millilitres(volume_mm3: float) -> str:
    """0.05, 4.2, 77: a volume is no better known than that."""
    volume = volume_mm3 / 1000
    return f"{volume:.{2 if volume < 1 else 1 if volume < 10 else 0}f}"


def quantity(value: float, unit: Code) -> str:
    """A number with its unit as one writes it."""
    names = {"[hnsf'U]": "HU", "1": "", "mm3": "mm3", "%": "%"}
    shown = names.get(unit[0], unit[2] if unit[0].startswith("{") else unit[0])
    return f"{number(value)} {shown}".strip()


def number(value: float) -> str:
    """Three figures that count, no zeros at the end, never in powers of ten: 17.2, 8.1, 1240, 0.003."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def capital(text: str) -> str:
    """With a capital letter at the beginning."""
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


def _stop(text: str) -> str:
    """A sentence ends in a full stop, once, and begins with a capital letter."""
    text = capital(text.strip())
    return text if not text or text[-1] in ".!?" else text + "."
