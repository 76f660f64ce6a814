"""DICOM over TLS: mutual, 1.2 at least, only suites with forward secrecy and authenticated encryption.

source  PS3.15 B.12 (BCP 195 TLS profile), RFC 9325
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from node.errors import ConfigurationError
from node.settings import Settings

CIPHER_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 suites; those of TLS 1.3 all qualify."""


def server_context(settings: Settings) -> ssl.SSLContext:
    """For our listener: whoever calls must show a certificate of our authorities. Raises ConfigurationError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """For calls to peers: their certificate must be of our authorities and name the host. Raises ConfigurationError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    context.check_hostname = True
    return context


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
