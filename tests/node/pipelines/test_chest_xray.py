import numpy as np

from models.contract import Radiograph, SourceRef
from node.pipelines.chest_xray import chest_xray
from node.pipelines.models import Models


def test_says_which_analyses_were_not_done_and_why() -> None:
    image = Radiograph(np.zeros((8, 8), np.float32), (0.0, 4095.0), SourceRef("1.2"))
    findings = chest_xray(image, Models(), lambda _done, _total: None)
    assert {analysis.outcome for analysis in findings.analyses} == {"not done"}
    assert all(analysis.reason for analysis in findings.analyses)
    assert findings.images == ()
