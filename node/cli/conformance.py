"""`conformance`: the DICOM conformance statement, made from the running code; with --home also of this site."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from node.cli import home as homes
from node.cli.studies import JSON, open_database
from node.cli.words import print_json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from node.audit.catalogue import Entry
    from node.dicom.conformance import Border
    from node.settings import Peer, Route, Settings

SECRETS = frozenset({"database_url", "redis_url", "audit_token"})
"""Settings that may hold a password: of a site it is told only whether they are set."""


@dataclass(frozen=True)
class Parameter:
    """A setting, or a line of the site file. `here`: its value at this site, where it is not the default."""

    name: str
    default: str
    meaning: str
    here: str = ""


@dataclass(frozen=True)
class Statement:
    """All that the statement says, before it is text."""

    product: str
    version: str
    manufacturer: str
    border: Border
    audit: Sequence[Entry]
    untold: Sequence[str]
    syslog: Mapping[str, str]
    limits: Mapping[str, str]
    settings: Sequence[Parameter]
    site_file: Sequence[Parameter]
    site: Site | None


@dataclass(frozen=True)
class Site:
    """Who this site's node knows, and what it does."""

    aet: str
    port: int
    tls_port: int | None
    peers: Sequence[Peer]
    routes: Sequence[Route]
    not_on: Mapping[str, str]
    """Analyses that are not in service, with their state."""


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Peers")(conformance)


def conformance(ctx: typer.Context, as_json: bool = JSON) -> None:
    """The DICOM conformance statement (PS3.2), as Markdown; with --home also this site's settings, peers and routes.

    \b
    pacsnode conformance > CONFORMANCE.md
    pacsnode --home DIR conformance --json
    """
    from node.cli.statement import markdown

    statement = gather(ctx)
    if as_json:
        print_json(_plain(statement))
    else:
        typer.echo(markdown(statement), nl=False)


def _plain(it: Statement) -> Mapping[str, Any]:
    """For JSON: peers and routes as the site file has them."""
    plain = dataclasses.asdict(it)
    if it.site is not None:
        plain["site"]["peers"] = [peer.model_dump(mode="json") for peer in it.site.peers]
        plain["site"]["routes"] = [route.model_dump(mode="json", by_alias=True) for route in it.site.routes]
    return plain


def gather(ctx: typer.Context) -> Statement:
    """raises ConfigurationError where a home is named that is none"""
    from node.audit.catalogue import catalogue
    from node.dicom.conformance import border
    from node.settings import MANUFACTURER, MODEL_NAME, VERSION

    audit, untold = catalogue()
    settings = homes.load(ctx.obj) if ctx.obj is not None else None
    return Statement(
        product=MODEL_NAME,
        version=VERSION,
        manufacturer=MANUFACTURER,
        border=border(),
        audit=audit,
        untold=untold,
        syslog=_syslog(),
        limits=_limits(),
        settings=[_parameter(name, settings) for name in _names()],
        site_file=list(_site_file()),
        site=None if settings is None else _site(ctx, settings),
    )


def _names() -> Sequence[str]:
    from node.settings import Settings

    return list(Settings.model_fields)


def _parameter(name: str, settings: Settings | None) -> Parameter:
    from node.settings import Settings

    field = Settings.model_fields[name]
    value = field.default if settings is None else getattr(settings, name)
    here = "" if value == field.default else "is set" if name in SECRETS else shown(value)
    return Parameter(name, shown(field.default), _one_line(field.description), here)


def _site_file(model: type[BaseModel] | None = None, table: str = "") -> Iterable[Parameter]:
    """Line by line, tables within tables behind them."""
    from node.settings import Site as SiteFile

    inner = []
    for name, field in (model or SiteFile).model_fields.items():
        line = ".".join(filter(None, (table, field.alias or name)))
        within = _table_of(field.annotation)
        if within is not None:
            inner.append((within, line))
        else:
            default = "(must be given)" if field.is_required() else shown(field.default)
            yield Parameter(line, default, _one_line(field.description))
    for within, line in inner:
        yield from _site_file(within, line)


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, or holds several of."""
    from pydantic import BaseModel

    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _site(ctx: typer.Context, settings: Settings) -> Site:
    from node.db import peers, switches

    with open_database(ctx).read() as session:
        return Site(
            aet=settings.aet,
            port=settings.port,
            tls_port=settings.tls_port,
            peers=peers.peers(session),
            routes=peers.routes(session),
            not_on={name: row.state for name, row in switches.not_on(session).items()},
        )


def _syslog() -> Mapping[str, str]:
    """Read off a message as it is sent."""
    from node.audit.syslog import Repository, syslog_message

    heads = [syslog_message(b"", at="-", success=success).split(b" ") for success in (True, False)]
    priorities = [int(head[0][1 : head[0].index(b">")]) for head in heads]
    return {
        "facility": str(priorities[0] // 8),
        "severity": str(priorities[0] % 8),
        "severity of a failure": str(priorities[1] % 8),
        "message id": heads[0][5].decode("ascii"),
        **{f"port of {scheme}": str(Repository.of(f"{scheme}://host").port) for scheme in ("tls", "tcp", "udp")},
    }


def _limits() -> Mapping[str, str]:
    from node.dicom import commit, holdings, retrieve, slots
    from node.dicom.association import MOST_CONTEXTS
    from node.dicom.select import MOST_FRONTAL
    from node.dicom.transport import MOST_P_DATA
    from node.wiring import DELIVER_THREADS

    return {
        "presentation contexts of an association": str(MOST_CONTEXTS),
        "associations as requestor, of each `deliver` process, one to a peer": str(DELIVER_THREADS),
        "share of all associations that one host may have": f"{100 * slots.SHARE_OF_ONE_HOST:g} %",
        "longest P-DATA-TF that is believed, bytes": str(MOST_P_DATA),
        "wait for a commitment report on the association of the request, s": f"{commit.REPORT_WAIT_S:g}",
        "least patience with C-FIND of a harvest, s": f"{holdings.PATIENCE_S:g}",
        "least patience with C-GET and C-MOVE, s": f"{retrieve.PATIENCE_S:g}",
        "frontal radiographs of a series that are analysed": str(MOST_FRONTAL),
    }


def shown(value: Any) -> str:
    """A value as an operator would write it."""
    if value is None or value == "":
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return value.name if isinstance(value, Path) and not value.is_absolute() else str(value)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
