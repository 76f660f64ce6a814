"""Orthanc as the hospital's PACS: stores, routes to the node, takes results back, answers storage commitment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from system.dcmtk import Address
from system.processes import Process, free_port, listens, require, wait_until

ROUTE_STABLE_STUDIES = """
function OnStableStudy(studyId, tags, metadata)
  RestApiPost('/modalities/node/store', DumpJson({ Resources = { studyId }, Asynchronous = true }, true))
end
"""
"""SendToModality() would take instances only, and fail in silence."""

ROUTE_EACH_INSTANCE = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin['RequestOrigin'] ~= 'Lua' and origin['RemoteAet'] ~= '{node}' then
    SendToModality(instanceId, 'node')
  end
end
"""


@dataclass(frozen=True)
class Remote:
    """The node as Orthanc knows it."""

    aet: str
    port: int


class Orthanc:
    """One Orthanc on two loopback ports, its storage under `folder`. May be stopped and started again.

    Debian's Orthanc 1.10 has no bind address: RemoteAccessAllowed = false makes it refuse HTTP from elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: Remote,
        aet: str = "PACS",
        lua: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.program = require("Orthanc")
        self.folder = folder
        self.aet = aet
        self.port = free_port()
        self.http_port = free_port()
        self.env = env
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        scripts = []
        if lua:
            script = folder / "route.lua"
            script.write_text(lua.replace("{node}", node.aet), encoding="utf8")
            scripts = [str(script)]
        self.configuration: dict[str, object] = {
            "Name": aet,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": aet,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "HttpServerEnabled": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "SslEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": False,
            "StableAge": 2,
            "DefaultEncoding": "Utf8",
            "DicomScuTimeout": 20,
            "DicomAssociationCloseDelay": 1,
            "ConcurrentJobs": 2,
            "LuaScripts": scripts,
            "Plugins": [],
            "DicomModalities": {
                "node": {
                    "AET": node.aet,
                    "Host": "127.0.0.1",
                    "Port": node.port,
                    "AllowEcho": True,
                    "AllowFind": True,
                    "AllowGet": True,
                    "AllowMove": True,
                    "AllowStore": True,
                    "AllowStorageCommitment": True,
                }
            },
        }

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self.configuration, indent=1), encoding="utf8")
        self.process = Process([self.program, configuration], log=self.folder / "orthanc.log", env=self.env)
        self.process.wait_ready(lambda: listens(self.http_port) and listens(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    @property
    def address(self) -> Address:
        return Address(self.aet, self.port)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=300) as client:
            response = client.request(method, f"http://127.0.0.1:{self.http_port}{path}", **given)
        response.raise_for_status()
        return response

    def get(self, path: str) -> Any:
        return self.request("GET", path).json()

    def upload(self, files: Iterable[Path]) -> set[str]:
        """Study Instance UIDs of what was stored, by HTTP."""
        studies = set()
        with httpx.Client(trust_env=False, timeout=60) as client:
            for file in files:
                answer = client.post(f"http://127.0.0.1:{self.http_port}/instances", content=file.read_bytes())
                answer.raise_for_status()
                studies.add(answer.json()["ParentStudy"])
        return {self.get(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"] for study in studies}

    def study_id(self, study_uid: str) -> str | None:
        found = self.request("POST", "/tools/lookup", content=study_uid).json()
        return next((item["ID"] for item in found if item["Type"] == "Study"), None)

    def route(self, study_uid: str) -> None:
        """Orthanc pushes the study to the node and waits for the end of it."""
        self.request("POST", "/modalities/node/store", content=self.study_id(study_uid))

    def instances(self, study_uid: str) -> list[str]:
        """Orthanc's own ids of a study's instances; empty when it has no such study."""
        study = self.study_id(study_uid)
        return [] if study is None else [item["ID"] for item in self.get(f"/studies/{study}/instances")]

    def file(self, instance_id: str) -> bytes:
        return self.request("GET", f"/instances/{instance_id}/file").content

    def fetch(self, study_uid: str, into: Path) -> dict[str, Path]:
        """Every instance of a study as a file, by SOP Instance UID."""
        into.mkdir(parents=True, exist_ok=True)
        files = {}
        for instance_id in self.instances(study_uid):
            uid = self.get(f"/instances/{instance_id}")["MainDicomTags"]["SOPInstanceUID"]
            files[uid] = into / f"{uid}.dcm"
            files[uid].write_bytes(self.file(instance_id))
        return files

    def series(self, study_uid: str) -> dict[str, dict[str, str]]:
        """Main tags of each series by Series Instance UID."""
        study = self.study_id(study_uid)
        listed = [] if study is None else self.get(f"/studies/{study}/series")
        return {item["MainDicomTags"]["SeriesInstanceUID"]: item["MainDicomTags"] for item in listed}

    def wait_for_series(self, study_uid: str, modality: str, *, timeout_s: float = 120) -> dict[str, dict[str, str]]:
        """Series of one modality in a study, once there is one."""
        return wait_until(
            lambda: {uid: tags for uid, tags in self.series(study_uid).items() if tags.get("Modality") == modality},
            f"a series of modality {modality} in Orthanc",
            timeout_s=timeout_s,
            every_s=0.5,
        )
