"""The conformance statement as Markdown: the words are in statement.md, all that code decides is put in here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.cli.conformance import Parameter, Site, Statement
    from node.dicom.conformance import Border, Named
    from node.settings import Peer, Route

_WORDS = Path(__file__).with_name("statement.md")
_TIMES = (
    *("connection_timeout_s", "tls_handshake_timeout_s", "association_timeout_s", "dimse_timeout_s", "idle_timeout_s"),
    *("commitment_wait_s", "retry_first_s", "retry_most_s", "delivery_attempts", "breaker_failures", "breaker_open_s"),
)


def markdown(it: Statement) -> str:
    border = it.border
    base = next(one for one in it.settings if one.name == "series_number_base")
    return Template(_WORDS.read_text(encoding="utf8")).substitute(
        _tables(it),
        product=it.product,
        version=it.version,
        commitment_instance=border.commitment_instance,
        cipher_suites=border.cipher_suites,
        character_sets=", ".join(border.character_sets),
        syslog=", ".join(f"{what} {value}" for what, value in it.syslog.items()),
        untold=", ".join(it.untold),
        base=base.here or base.default,
        copied=", ".join(border.copied),
        left_out=", ".join(border.left_out),
        decoded_syntaxes=_names(border.decoded_syntaxes),
        own_codes="; ".join(border.own_codes),
        templates="; ".join(f"TID {number} ({what})" for number, what in border.templates.items()),
        site="" if it.site is None else _site(it.site),
    )


def _tables(it: Statement) -> Mapping[str, str]:
    border, has_site = it.border, it.site is not None
    named = {one.name: one for one in it.settings}
    rejections = [(one.result, one.source, one.reason, one.words, one.when) for one in border.rejections]
    answers = [(service, one.code, one.meaning) for service, of in border.answers.items() for one in of]
    return {
        "services": table(("network service", "user (SCU)", "provider (SCP)"), _services(border)),
        "policies": table(("policy", "value"), _policies(it, named)),
        "proposals": table(
            ("activity", "SOP classes", "role", "transfer syntaxes, first preferred"), _proposals(border)
        ),
        "query_keys": table(
            ("level", "purpose", "attributes"),
            [(keys.level, keys.purpose, ", ".join(keys.keywords)) for keys in border.query_keys],
        ),
        "taken": table(("status", "meaning to us"), [(one.code, one.meaning) for one in border.taken]),
        "analysed": table(
            ("analysis", "classes of images"), [(name, _names(of)) for name, of in border.analysed.items()]
        ),
        "rejections": table(("result", "source", "reason", "meaning", "when"), rejections),
        "answers": table(("operation", "status", "when"), answers),
        "times": _parameters([named[name] for name in _TIMES], has_site=has_site),
        "settings": _parameters([one for one in it.settings if one.name not in _TIMES], has_site=has_site),
        "site_file": _parameters(it.site_file, has_site=False),
        "audit": table(
            ("EventID", "action", "EventTypeCode", "of events of the trail"),
            [(f"{one.event} ({one.code})", one.action, one.kind, ", ".join(one.of)) for one in it.audit],
        ),
        "made": table(
            ("kind (`takes`)", "object", "SOP classes", "modality", "series number", "series description begins"),
            _made(border),
        ),
        "accepted_classes": _uids(border.accepted_classes),
        "accepted_syntaxes": _uids(border.accepted_syntaxes),
    }


def _services(border: Border) -> Iterable[Sequence[str]]:
    results = {one for made in border.made for one in made.classes}
    yield "Verification", "yes", "yes"
    for one in sorted(results, key=lambda one: one.name):
        yield one.name, "yes: results", "yes"
    yield "Every other storage class (9.6)", "`pacsnode send`", "yes"
    yield "Storage Commitment Push Model", "yes", "no"
    yield "Study Root Query/Retrieve - FIND", "yes", "no"
    yield "Study Root Query/Retrieve - GET", "harvest", "no"
    yield "Study Root Query/Retrieve - MOVE", "harvest", "no"


def _policies(it: Statement, named: Mapping[str, Parameter]) -> Iterable[Sequence[str]]:
    def value(name: str) -> str:
        return f"{named[name].here or named[name].default} ({name})"

    yield "application context name", it.border.application_context
    yield "longest PDU that is taken, bytes", value("max_pdu")
    yield "associations as acceptor, in all", value("max_associations")
    yield from it.limits.items()
    yield "asynchronous operations", "not negotiated: one operation at a time, either way"
    yield "SOP class extended negotiation, user identity", "none; offers are not answered"
    yield "role selection", "as requestor for C-GET, as acceptor for storage commitment"
    yield "implementation class UID", it.border.implementation_class_uid
    yield "implementation version name", it.border.implementation_version_name


def _proposals(border: Border) -> Iterable[Sequence[str]]:
    for proposal in border.proposals:
        syntaxes = dict.fromkeys(syntax for _, offered in proposal.contexts for syntax in offered)
        yield proposal.purpose, _names([of for of, _ in proposal.contexts]), proposal.role, _names(syntaxes)


def _made(border: Border) -> Iterable[Sequence[str]]:
    for one in border.made:
        number = "base" if one.number is None else f"base + 10 × that of the source + {one.number}"
        yield one.kind, one.what, _names(one.classes), one.modality, number, one.description


def _parameters(parameters: Sequence[Parameter], *, has_site: bool) -> str:
    here = ("here",) if has_site else ()
    return table(
        ("parameter", "default", *here, "meaning"),
        [(one.name, one.default, *((one.here,) if has_site else ()), one.meaning) for one in parameters],
    )


def _site(site: Site) -> str:
    tls = f", by TLS {site.tls_port}" if site.tls_port is not None else ""
    parts = [
        "#### 4.4.3 This site",
        f"AE title {site.aet}, port {site.port}{tls}. Peers:",
        table(
            ("AE title", "calls from", "listens at", "TLS", "sends", "gets", "proof", "study complete after"),
            map(_peer, site.peers),
        ),
        "Routes:",
        table(("of what this peer sends", "results go to", "analyses"), map(_route, site.routes)),
    ]
    if site.not_on:
        parts.append(
            f"Analyses not in service: {', '.join(f'{name} ({state})' for name, state in site.not_on.items())}."
        )
    return "\n\n".join(parts) + "\n\n"


def _peer(peer: Peer) -> Sequence[str]:
    listens = peer.port is not None
    gets = peer.may_receive and listens
    proof = "commitment, else query" if peer.commitment == "auto" else "query"
    return (
        peer.aet,
        peer.host,
        f"{peer.host}:{peer.port}" if listens else "(nowhere)",
        "yes" if peer.tls else "no",
        peer.priority if peer.may_send else "nothing",
        ", ".join(peer.takes) if gets else "nothing",
        proof if gets else "",
        f"{peer.completion.quiet_s:g} s of quiet, {peer.completion.deadline_s:g} s at most" if peer.may_send else "",
    )


def _route(route: Route) -> Sequence[str]:
    source = "any other" if route.source == "*" else route.source
    return source, ", ".join(route.destinations), ", ".join(route.pipelines)


def _uids(names: Sequence[Named]) -> str:
    return table(("name", "UID"), [(one.name, one.uid) for one in names])


def _names(names: Iterable[Named]) -> str:
    return "; ".join(one.name for one in names)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
