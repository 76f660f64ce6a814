"""The HTTP side: health, readiness, metrics, and pages for people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response

from node.archive import Archive
from node.db import readiness
from node.db.session import Database
from node.settings import VERSION, Settings
from node.web import fhir, health, metrics, quality

_HOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>pacsnode</title>
<p>pacsnode {version}, AE title {aet}: a PACS processing node. Research use, not a medical device.
<a href="/quality">image quality</a> <a href="/healthz">health</a>
<a href="/readyz">readiness</a> <a href="/workz">work</a> <a href="/metrics">metrics</a></p></html>
"""


def make_app(
    settings: Settings, *, database: Database, archive: Archive, ping_broker: Callable[[], None], ask: fhir.Ask
) -> FastAPI:
    """An ASGI app. It only reads, and shows no patient data but to who may read the trail (`ask`)."""
    app = FastAPI(title="pacsnode", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
    exposition = metrics.Exposition(database, archive.root)
    probes = health.probes(settings, database=database, archive=archive, ping_broker=ping_broker)

    @app.get("/", response_class=HTMLResponse)
    def home() -> str:
        return _HOME.format(version=VERSION, aet=settings.aet.translate({38: "&amp;", 60: "&lt;", 62: "&gt;"}))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """This process answers; nothing else is asked."""
        return {"status": "ok", "version": VERSION}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """200 where the node can take studies, else 503 with the reasons: whether to send it any.

        An analysis that is not in service is named, and is no reason: its studies are reported all the same.
        """
        reasons = {name: reason for name, probe in probes.items() if (reason := probe()) is not None}
        body = {
            "status": "not ready" if reasons else "ready",
            "parts": {name: reasons.get(name, "ok") for name in probes},
            "analyses": {} if "database" in reasons else health.not_in_service(database),
        }
        return JSONResponse(body, status_code=503 if reasons else 200, headers={"Cache-Control": "no-store"})

    @app.get("/workz")
    def workz() -> JSONResponse:
        """200 where what was taken gets done in time, else 503 with what waits or failed: whether to call somebody.

        Not for a load balancer or a liveness probe: neither turning studies away nor a new start would help.
        """
        found = health.standstill(settings, database)
        body = {"status": "stands still" if found else "ok", "found": found}
        return JSONResponse(body, status_code=503 if found else 200, headers={"Cache-Control": "no-store"})

    @app.get("/metrics")
    def scrape() -> Response:
        lack = readiness.lack(database)
        if lack is not None:  # said, not thrown: a traceback in a log could hold values of a statement
            return Response(f"# the database {lack}\n", status_code=503, media_type=metrics.CONTENT_TYPE)
        return Response(exposition.scrape(), media_type=metrics.CONTENT_TYPE)

    @app.get("/quality")
    def quality_page(on: dt.date | None = None) -> Response:
        """As of that day; today's without one."""
        return quality.page(database, aet=settings.aet, today=on or dt.date.today())

    fhir.add_to(app, settings, database, ask)
    return app
