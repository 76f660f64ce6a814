"""From the last image of a CT to its last result in the PACS, with its parts, on the embedded node.

A stand-in PACS (DCMTK storescp) gets the results; the parts are those that `pacsnode study UID --json` tells: waiting
for quiet, planning, each step of each job, sending and proof. The quiet time is a setting, so it is told apart.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from system import dcmtk, studies
from system.dcmtk import StoreScp
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text

QUIET_S = 2.0


def seconds(start: str | None, end: str | None) -> float:
    if start is None or end is None:
        return float("nan")
    return (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds()


def parts(told: dict[str, Any]) -> dict[str, float]:
    """Seconds of each part of the last revision, in the order in which they come to pass."""
    revision = told["revisions"][-1]
    last_image = revision["last_image_at"]
    found = {
        "first to last image": seconds(revision["first_image_at"], last_image),
        f"last image → complete (quiet time {QUIET_S:g} s)": seconds(last_image, revision["completed_at"]),
        "complete → planned": seconds(revision["completed_at"], revision["planned_at"]),
    }
    for job in revision["jobs"]:
        found[f"{job['pipeline']}: queued → started"] = seconds(job["queued_at"], job["started_at"])
        for step in job["steps"]:
            found[f"{job['pipeline']}: {step['name']}"] = float(step["seconds"])
    found["planned → reported"] = seconds(revision["planned_at"], revision["reported_at"])
    found["reported → last result sent"] = seconds(
        revision["reported_at"], max(line["sent_at"] for line in revision["deliveries"])
    )
    found["reported → delivered and proven"] = seconds(revision["reported_at"], revision["delivered_at"])
    found["last image → last result delivered"] = seconds(last_image, revision["delivered_at"])
    found["… without the quiet time"] = found["last image → last result delivered"] - QUIET_S
    return found


def one_round(node: Node, study: studies.Study) -> dict[str, float]:
    answer = dcmtk.storescu(node.address, study.files, calling="MODALITY")
    if not answer.ok:
        raise RuntimeError(answer.text[-1000:])
    revision = Ledger(node).wait_ended(study.uid, timeout_s=1800)
    if revision.state != "delivered":
        raise RuntimeError(Ledger(node).summary(study.uid))
    return parts(node.json("study", study.uid))


def table(rounds: Sequence[dict[str, float]]) -> str:
    lines = ["| Part | seconds |", "|---|---|"]
    for name in rounds[0]:
        values = [each[name] for each in rounds if name in each]
        lines.append(f"| {name} | {statistics.median(values):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="slices of 512×512 in the CT")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    given, _ = parser.parse_known_args()
    threads = {"PACSNODE_THREADS": "0", "OMP_NUM_THREADS": str(os.cpu_count() or 1), "PACSNODE_LEASE_S": "120"}
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        folder = Path(name)
        with StoreScp(folder, aet="PACS") as pacs:
            destination = PeerEntry("PACS", port=pacs.address.port, commitment="never")
            peers = [PeerEntry("MODALITY", quiet_s=QUIET_S, may_receive=False), destination]
            site = site_text(peers, {"*": ["PACS"]})
            with Node(folder / "node", site=site, env=threads) as node:
                rounds = []
                for number in range(given.repeats):
                    study = studies.ct_study(folder / str(number), name=f"t{number}", slices=given.images, size=512)
                    rounds.append(one_round(node, study))
                objects = len(pacs.files())
    text = table(rounds)
    title = f"Turnaround: CT of {given.images} slices 512×512, medians of {given.repeats}"
    print(f"\n{title}; {objects} objects in the PACS\n")
    print(text + "\n")
    given.out.mkdir(exist_ok=True)
    (given.out / "turnaround.md").write_text(text + "\n", encoding="utf8")
    (given.out / "turnaround.json").write_text(json.dumps(rounds, indent=1), encoding="utf8")


if __name__ == "__main__":
    main()
