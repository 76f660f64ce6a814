"""What an operator decides: process settings (environment, read once) and the site file (peers and routes).

Settings are frozen. Secrets may come from a file: PACSNODE_DATABASE_URL_FILE is read where
PACSNODE_DATABASE_URL would be. Peers and routes change at run time, so they become rows
(`pacsnode peers apply site.toml`); `Site` is the schema of that reviewed file.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from node.errors import ConfigurationError

VERSION = "0.1.0"
MANUFACTURER = "pacsnode"
MODEL_NAME = "PACS processing node"
UID_ROOT = "2.25"
"""Result UIDs are UUIDv5 under 2.25 (PS3.5 B.2): no registered root is needed and none is borrowed."""


def _ae_title(value: str) -> str:
    value = value.strip()
    if not 1 <= len(value) <= 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash (PS3.5 6.2)")
    return value


def _redis_url(value: str) -> str:
    if value and not _is_redis(value):  # it may hold a password: it is not repeated
        raise ValueError(
            "a broker URL is redis://[:PASSWORD@]HOST[:PORT][/NUMBER], rediss://… or redis+socket:///PATH;"
            " what is special in a password is percent-encoded"
        )
    return value


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "redis+socket":
        return bool(parts.path)
    return parts.scheme in ("redis", "rediss") and port != 0 and re.fullmatch(r"(/\d*)?", parts.path) is not None


def _audit_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_one = parts.scheme in ("tls", "tcp", "udp") and parts.hostname is not None and parts.port != 0
    except ValueError:
        is_one = False
    if value and not (is_one and not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)):
        raise ValueError("an audit repository is tls://HOST[:PORT], tcp://HOST[:PORT] or udp://HOST[:PORT]")
    return value


def _token(value: str) -> str:
    if value and (len(value) < _SHORTEST_TOKEN or not value.isascii() or not value.isprintable() or " " in value):
        raise ValueError(f"a token has {_SHORTEST_TOKEN} printable ASCII characters or more, and no spaces")
    return value


_SHORTEST_TOKEN = 20
_PREFIX = "PACSNODE_"
_LONGEST_S = 100 * 365.25 * 86400.0
"""Longer spans reach beyond the calendar."""
AETitle = Annotated[str, AfterValidator(_ae_title)]
Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]


class Settings(BaseSettings):
    """Process settings. Every name may be given as PACSNODE_<NAME> or, for secrets, PACSNODE_<NAME>_FILE."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True)

    home: Path = Path("pacsnode-home")
    """The folder that holds all the node owns."""
    aet: AETitle = "PACSNODE"
    """Our AE title."""
    host: str = "0.0.0.0"
    """Address at which the DICOM ports listen."""
    port: int = Field(11112, ge=0, le=65535)
    """DICOM port."""
    web_host: str = "127.0.0.1"
    """Address at which the web port listens."""
    web_port: int = Field(8080, ge=0, le=65535)
    """Web port: /readyz, /metrics, /fhir/AuditEvent. Plain HTTP."""
    receiver_host: str = ""
    """Where `web` finds the receiver, when it runs on another host; empty means this one."""
    database_url: str = ""
    """SQLAlchemy URL; empty means the SQLite file under `home`."""
    redis_url: Annotated[str, AfterValidator(_redis_url)] = ""
    """Broker URL; empty means the embedded Redis on a socket under `home`."""

    # receive
    max_pdu: int = Field(131072, ge=16384, le=1 << 24)
    """Longest PDU that we take, in bytes."""
    max_associations: int = Field(64, ge=1)
    """Associations that others may have with us at once; three quarters of them from one host."""
    disk_watermark_percent: float = Field(90.0, gt=0, le=100)
    """Used share of the archive's file system above which C-STORE answers 0xA700."""
    disk_reserve_mb: int = Field(512, ge=0)
    """Free space below which it does too, whatever the share."""
    connection_timeout_s: Seconds = 10.0
    """For a TCP connection to a peer."""
    tls_handshake_timeout_s: Seconds = 10.0
    """For a TLS handshake, either way."""
    association_timeout_s: Seconds = 30.0
    """For the answer to an association request, either way."""
    dimse_timeout_s: Seconds = 60.0
    """For the answer to a request, and for the next bytes of a message under way."""
    idle_timeout_s: Seconds = 60.0
    """An association without a message for so long is aborted."""

    # DICOM TLS (BCP 195, mutual): on when a certificate is given
    tls_port: int | None = Field(None, ge=0, le=65535)
    """Second DICOM port, by TLS; none without it."""
    tls_certificate: Path | None = None
    """Our certificate, with its chain; enough for sending by TLS."""
    tls_key: Path | None = None
    """Private key of that certificate; empty where its file holds the key too."""
    tls_authorities: Path | None = None
    """Authorities whose certificates peers must show."""

    # audit: the trail leaves as PS3.15 messages by syslog, and is read as FHIR AuditEvents
    audit_url: Annotated[str, AfterValidator(_audit_url)] = ""
    """tls://HOST[:6514], tcp://HOST[:601] or udp://HOST[:514] of the audit repository; empty: sent nowhere."""
    audit_site: str = ""
    """AuditEnterpriseSiteID: the hospital, where one repository serves several."""
    audit_patient_names: bool = False
    """Messages name a patient by id; whether by name too."""
    audit_certificate: Path | None = None
    """Files of TLS to the repository; without them those of DICOM TLS serve."""
    audit_key: Path | None = None
    """Private key of that certificate."""
    audit_authorities: Path | None = None
    """Authorities whose certificate the repository must show."""
    audit_token: Annotated[str, AfterValidator(_token)] = ""
    """Who shows it (Authorization: Bearer …) may read the trail at /fhir/AuditEvent; empty: nobody may."""

    # work
    device: str = "auto"
    """"auto" (cuda where torch has one), "cpu", "cuda:0"…"""
    threads: int = Field(0, ge=0)
    """Threads of one worker's inference; 0 means all cores."""
    least_quality: float = Field(1.0, ge=0, le=4)
    """Median image quality (0 bad … 4 excellent) of a CT series below which lesions are not searched for in it."""
    radiograph_maps: bool = False
    """Whether a restored radiograph comes with maps of what was changed and of how sure that is."""
    radiograph_side_mm: float = Field(0.0, ge=0, le=600)
    """Longer side of radiographs whose header does not say how large a pixel is: that of the site's detector, where all
    are whole. 0: not known, and such radiographs are not restored."""
    lease_s: Seconds = 120.0
    """A job whose worker has not renewed its lease for so long is given to another."""
    max_attempts: int = Field(3, ge=1)
    """Of an analysis, before it is reported as failed."""
    clock_interval_s: Seconds = 1.0
    """How often is looked for what is due."""
    overdue_s: Seconds = 3600.0
    """Work that waits for longer is a fault for `pacsnode check` and /workz. Longer than the queue on a busy day.
    Routine work that has waited for half of it gets every fourth turn, whatever urgent work there is."""

    # deliver
    retry_first_s: Seconds = 5.0
    """Wait after the first failure to deliver; doubled after each further one."""
    retry_most_s: Seconds = 900.0
    """The longest wait between two tries to deliver."""
    delivery_attempts: int = Field(20, ge=1)
    """Of an object that a reachable peer does not take or keep, before it is a dead letter."""
    breaker_failures: int = Field(3, ge=1)
    """Failed associations in a row after which a peer is left alone."""
    breaker_open_s: Seconds = 30.0
    """How long it is left alone then."""
    commitment_wait_s: Seconds = 60.0
    """How long a storage commitment report may take before we query instead."""

    # retention: how many days after the last thing that happened to a study its files are deleted; 0: never.
    # Rows, UIDs, digests and the audit trail are never deleted.
    keep_days: float = Field(0.0, ge=0)
    """Days until files go, of studies that are finished, their results proven (storage commitment, query); 0: never."""
    keep_failed_days: float = Field(0.0, ge=0)
    """Likewise where an analysis failed, a report was given up, or results are refused, unproven or went nowhere."""
    keep_conflict_days: float = Field(0.0, ge=0)
    """Likewise of studies with objects kept aside: a known UID with other bytes, for a person to look at."""

    # text in results
    institution_note: str = "Research use only. Not a medical device. Not for diagnostic use."
    """Stands in every result."""
    series_number_base: int = Field(9000, ge=1000)
    """Series numbers of results begin here."""

    @property
    def archive_dir(self) -> Path:
        return self.home / "archive"

    @property
    def run_dir(self) -> Path:
        """Sockets, logs and process ids of the embedded node."""
        return self.home / "run"

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home.resolve() / 'node.sqlite'}"

    @property
    def broker_url(self) -> str:
        return self.redis_url or f"redis+socket://{self.run_dir.resolve() / 'redis.sock'}"

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Environment, then what the command line gave. Raises ConfigurationError in words."""
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            source = os.environ.get(f"PACSNODE_{name.upper()}_FILE")
            if source:
                try:
                    values[name] = Path(source).read_text(encoding="utf8").strip()
                except OSError as exc:
                    raise ConfigurationError(
                        f"PACSNODE_{name.upper()}_FILE: {source} cannot be read ({exc.strerror})"
                    ) from exc
                except UnicodeDecodeError as exc:
                    raise ConfigurationError(f"PACSNODE_{name.upper()}_FILE: {source} is not text in UTF-8") from exc
        values.update({key: value for key, value in given.items() if value is not None})
        try:
            return cls(**values)
        except ValidationError as exc:
            raise ConfigurationError(_in_words("settings", exc)) from exc


_OF_COMPOSE = frozenset({"IMAGE", "SECRETS", "SITE", "TLS", "AUDIT_TLS"})
"""What deploy/compose reads, besides settings."""


def doubtful_names(environment: Collection[str]) -> list[str]:
    """Names in the environment that do not do what they seem to, in words; their values may be secrets."""
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known} | _OF_COMPOSE
    said = [
        f"{name} is given twice: {name}_FILE counts"
        for name in sorted(environment)
        if name.startswith(_PREFIX) and f"{name}_FILE" in environment
    ]
    for name in sorted(environment):
        bare = name.upper().removeprefix(_PREFIX)
        if bare == name.upper() or bare in known:
            continue
        near = difflib.get_close_matches(bare, sorted(known), n=1)
        meant = f"; did you mean {_PREFIX}{near[0]}?" if near else ""
        said.append(f"{name} is not a setting of the node and changes nothing{meant}")
    return said


class Completion(BaseModel):
    """When a study that this peer sends is taken as complete (DICOM itself has no such signal)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    quiet_s: float = Field(30.0, ge=0, le=_LONGEST_S)
    """No new image for so long."""
    deadline_s: Seconds = 3600.0
    """This long after the first image, whatever still comes."""
    when_images: int | None = Field(None, ge=1)
    """Content rule: at once when the study has so many images."""
    when_modality: str = ""
    """Content rule: at once when an instance of this modality has come."""
    when_series_description: str = ""
    """Content rule: at once when an instance with exactly this Series Description has come."""


class Peer(BaseModel):
    """One DICOM application that we know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    aet: AETitle
    """Its AE title, as it calls us and as we call it."""
    host: str
    """Address, host name or network (10.1.0.0/16) it calls from; must be one address or name to be sent to."""
    port: int | None = Field(None, ge=1, le=65535)
    """Where it listens. None: it only sends."""
    description: str = ""
    """For people."""
    may_send: bool = True
    """Whether objects that it sends are taken."""
    may_receive: bool = True
    """Whether results go to it."""
    tls: bool = False
    """Results go to it over TLS."""
    commitment: Literal["auto", "never"] = "auto"
    """"auto" asks for storage commitment where the peer offers it, else verifies by query; "never" only queries."""
    takes: tuple[Literal["sr", "sr-text", "seg", "gsps", "sc", "derived"], ...] = ("sr", "seg", "sc", "derived")
    """Kinds of results it is given; a kind that it lacks falls back as ARCHITECTURE.md says."""
    reconcile: bool = False
    """Whether results go to it with patient and order as it has them by then (C-FIND), not as they were received."""
    priority: Literal["stat", "routine"] = "routine"
    """Of studies that it sends without saying so themselves."""
    completion: Completion = Completion()

    def calls_from(self, address: str) -> bool:
        """Whether a connection from this address may be this peer. Raises OSError where its name is not resolved."""
        return ipaddress.ip_address(address) in _networks(self.host)


class Route(BaseModel):
    """Results of what `source` sends go to `destinations`. "*" is any peer without a route of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    source: str = Field(alias="from")
    """Peer that has sent the images; "*" any without a route of its own."""
    destinations: tuple[AETitle, ...] = Field(alias="to")
    """Peers that get the results."""
    pipelines: tuple[str, ...] = ("low_dose_ct", "chest_xray")
    """Analyses that may run on these images."""


class Switch(BaseModel):
    """Whether an analysis is in service. One that does not stand in the file is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Literal["low_dose_ct", "chest_xray"]
    """Which analysis."""
    state: Literal["on", "shadow", "off"] = "on"
    """"shadow": it runs, and nothing of it leaves the node; "off": it does not run."""
    reason: str = Field("", max_length=200)
    """Why it is not on, for the trail and `check`; of one that is off, for the reader of the report too."""

    @model_validator(mode="after")
    def _says_why(self) -> Switch:
        if self.state != "on" and not self.reason.strip():
            raise ValueError(f'analysis {self.name}: state = "{self.state}" needs a reason')
        if not self.reason.isprintable():
            raise ValueError(f"analysis {self.name}: the reason is one line of text")
        return self


class Site(BaseModel):
    """site.toml: all peers and routes, and which analyses are in service, reviewed as one file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    peers: tuple[Peer, ...] = Field((), alias="peer")
    routes: tuple[Route, ...] = Field((), alias="route")
    switches: tuple[Switch, ...] = Field((), alias="analysis")

    @model_validator(mode="after")
    def _names_agree(self) -> Site:
        names = [peer.aet for peer in self.peers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"peer {name} stands twice")
        analyses = [switch.name for switch in self.switches]
        for name in analyses:
            if analyses.count(name) > 1:
                raise ValueError(f"analysis {name} stands twice")
        for peer in self.peers:
            if peer.port is not None and "/" in peer.host:
                raise ValueError(f"peer {peer.aet}: {peer.host} is a network, which has no port to be sent to")
        known = {peer.aet: peer for peer in self.peers}
        for route in self.routes:
            if route.source != "*" and route.source not in known:
                raise ValueError(f"route from {route.source}: no such peer in this file")
            for name in route.destinations:
                if name not in known:
                    raise ValueError(f"route from {route.source} to {name}: no such peer in this file")
                if known[name].port is None or not known[name].may_receive:
                    raise ValueError(f"route to {name}: this peer has no port, or may_receive = false")
        return self

    @classmethod
    def read(cls, path: Path) -> Site:
        """Raises ConfigurationError that names the line or the field."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf8")))
        except OSError as exc:
            raise ConfigurationError(f"{path}: cannot be read ({exc.strerror})") from exc
        except UnicodeDecodeError as exc:
            raise ConfigurationError(f"{path}: not text in UTF-8 (byte {exc.start})") from exc
        except tomllib.TOMLDecodeError as exc:
            raise ConfigurationError(f"{path}: not TOML: {exc}") from exc
        except ValidationError as exc:
            raise ConfigurationError(_in_words(str(path), exc)) from exc


@lru_cache(maxsize=256)
def _networks_of_address(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None


def _networks(host: str) -> _Networks:
    network = _networks_of_address(host)
    if network is not None:
        return _Networks((network,))
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    return _Networks(tuple(ipaddress.ip_network(address) for address in found))


class _Networks:
    def __init__(self, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> None:
        self.networks = networks

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.networks)


def _in_words(where: str, exc: ValidationError) -> str:
    lines = []
    for error in exc.errors():
        field = ".".join(str(part) for part in error["loc"])
        lines.append(f"{where}: {field or 'file'}: {error['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
