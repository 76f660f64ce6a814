import numpy as np

from models.contract import Analysis, Findings, Image, Lesion, Map, Measurement, ModelIdentity, SourceRef
from node.jobs.body import from_body, sources_from_body, sources_to_body, to_body

MODEL = ModelIdentity("lidnet", "1", "ab" * 32, "simulated low-dose CT")
FINDINGS = Findings(
    "low_dose_ct",
    "1",
    (Analysis("Denoising", "done", "", MODEL), Analysis("Lesion detection", "not done", "no network")),
    images=(Image("denoised", np.ones((2, 3, 4), np.float32), "text", ("1", "DCM", "x"), MODEL, {"a": "b"}),),
    maps=(Map("change", np.ones((3, 4), np.float32), "Change", (-2.0, 2.0), "levels", "What it shows.", MODEL),),
    lesions=(
        Lesion(
            tracking_id="1",
            category=("1", "SCT", "Nodule"),
            site=("2", "SCT", "Lung"),
            laterality=None,
            mask=np.ones((2, 3, 4), bool),
            slice_index=1,
            long_axis_px=((1.0, 2.0), (3.0, 4.0)),
            short_axis_px=((1.0, 2.0), (3.0, 4.0)),
            long_axis_mm=2.0,
            short_axis_mm=1.0,
            volume_mm3=3.0,
            score=0.9,
            operating_point=0.5,
            model=MODEL,
        ),
    ),
    measurements=(Measurement(("n", "99", "Noise"), 1.5, ("u", "UCUM", "unit"), "how", "input"),),
    notes=("a note",),
)


def test_findings_come_back_from_json_without_their_arrays() -> None:
    import json

    back = from_body(json.loads(json.dumps(to_body(FINDINGS))))
    assert back.analyses == FINDINGS.analyses
    assert back.measurements == FINDINGS.measurements
    assert back.notes == FINDINGS.notes
    assert back.images[0].model == MODEL
    assert back.images[0].checks == {"a": "b"}
    assert (back.maps[0].title, back.maps[0].limits, back.maps[0].array.size) == ("Change", (-2.0, 2.0), 0)
    assert back.lesions[0].long_axis_px == FINDINGS.lesions[0].long_axis_px
    assert back.lesions[0].laterality is None
    assert back.weights_digest == FINDINGS.weights_digest


def test_sources_come_back() -> None:
    sources = (SourceRef("1.2.3"), SourceRef("1.2.3", 7))
    assert sources_from_body(sources_to_body(sources)) == sources
