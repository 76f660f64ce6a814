"""DICOM over TLS: mutual, 1.2 at least, only suites with forward secrecy and authenticated encryption.

source  PS3.15 B.12 (BCP 195 TLS profile), RFC 9325
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from node.errors import ConfigurationError
from node.settings import Settings

LOGGER = logging.getLogger(__name__)

CIPHER_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 suites; those of TLS 1.3 all qualify."""


def server_context(settings: Settings) -> ssl.SSLContext:
    """For our listener: whoever calls must show a certificate of our authorities. Raises ConfigurationError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class ServerContexts:
    """The listener's context, made anew once its files have changed: certificates are renewed while the node runs."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError."""
        self._settings = settings
        self._seen = _stamps(settings)
        self._context = server_context(settings)

    def newest(self) -> ssl.SSLContext:
        """That of files which cannot be used, such as half of a renewal, is the one before."""
        stamps = _stamps(self._settings)
        if stamps != self._seen:
            self._seen = stamps
            try:
                self._context = server_context(self._settings)
            except ConfigurationError as exc:
                LOGGER.error("the TLS files have changed and cannot be used, so the former ones serve: %s", exc.reason)
            else:
                LOGGER.info("the TLS files have changed and are in use")
        return self._context


def _stamps(settings: Settings) -> Sequence[tuple[int, int, int] | None]:
    return [_stamp(path) for path in (settings.tls_certificate, settings.tls_key, settings.tls_authorities)]


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found is not None else None


def ends(settings: Settings) -> list[tuple[str, dt.datetime]]:
    """(whose certificate, when it ends), ours first, then those of the authorities.

    raises   ConfigurationError   ours does not hold today, or the files cannot be used
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    authorities = [(f"authority {subject(one)}", _not_after(one)) for one in context.get_ca_certs()]
    return [("our certificate", _not_after(_seen_by_a_peer(settings))), *authorities]


def _not_after(certificate: Mapping[str, object]) -> dt.datetime:
    return dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), dt.UTC)


def _seen_by_a_peer(settings: Settings) -> Mapping[str, object]:
    """Our certificate as who trusts it reads it, from a handshake with ourselves: the one way `ssl` has."""
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 a client is done before its certificate is looked at
        context.load_cert_chain(settings.tls_certificate or "", settings.tls_key)
        context.load_verify_locations(settings.tls_certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    listens = settings.tls_port is not None
    contexts[listens].verify_mode = ssl.CERT_REQUIRED
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [contexts[0].wrap_bio(there, back, server_side=True), contexts[1].wrap_bio(back, there)]
    try:
        _shake_hands(ends)
    except ssl.SSLCertVerificationError as exc:
        raise ConfigurationError(f"our TLS certificate does not hold: {exc.verify_message}") from exc
    return ends[listens].getpeercert() or {}


def _shake_hands(ends: Sequence[ssl.SSLObject]) -> None:
    unfinished = list(reversed(ends))
    while unfinished:
        for end in list(unfinished):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            unfinished.remove(end)


def client_context(settings: Settings) -> ssl.SSLContext:
    """For calls to peers: their certificate must be of our authorities and name the host. Raises ConfigurationError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    context.check_hostname = True
    return context


def why_refused(exc: OSError) -> str:
    """Why a handshake failed, where one side refused the other; "" where the line was cut, or somebody left."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({exc.verify_message})"
    if not isinstance(exc, ssl.SSLError) or isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ""
    return f"no TLS that is taken here ({(exc.reason or type(exc).__name__).replace('_', ' ').lower()})"


def subject(certificate: Mapping[str, object] | None) -> str | None:
    """ "CN=CT 2,O=Radiology" of a verified peer certificate as `SSLSocket.getpeercert` gives it."""
    parts = certificate.get("subject", ()) if certificate else ()
    if not isinstance(parts, tuple):
        return None
    short = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}
    return ",".join(f"{short.get(name, name)}={value}" for part in reversed(parts) for name, value in part) or None


def _context(protocol: int, settings: Settings) -> ssl.SSLContext:
    if settings.tls_certificate is None or settings.tls_authorities is None:
        raise ConfigurationError("TLS needs tls_certificate and tls_authorities (it is always mutual)")
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHER_SUITES)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"TLS certificate or key cannot be used: {exc}") from exc
    try:
        context.load_verify_locations(settings.tls_authorities)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"TLS authorities cannot be used: {exc}") from exc
    return context
