"""Syslog to receivers on real sockets: what counts as taken, and what is said where it was not."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

import pytest

from network.certificates import Authority
from network.repository import Datagrams, Receiver, mutual
from node.audit import syslog
from node.audit.syslog import Repository, deliver, probe, syslog_message
from node.errors import PeerUnreachable

MESSAGES = [
    syslog_message(b"<AuditMessage>%d</AuditMessage>" % n, at="2026-01-15T07:10:01+00:00", success=True)
    for n in range(9)
]


def at(port: int, scheme: str = "tcp") -> Repository:
    return Repository.of(f"{scheme}://127.0.0.1:{port}")


def test_a_message_has_the_header_of_rfc_5424_and_of_the_dicom_profile() -> None:
    message = syslog_message(b"<AuditMessage/>", at="2026-01-15T07:10:01.000001+00:00", success=False)
    header = rb"<84>1 2026-01-15T07:10:01\.000001\+00:00 [!-~]{1,255} pacsnode \d+ DICOM\+RFC3881 - \xef\xbb\xbf"
    assert re.fullmatch(header + rb"<AuditMessage/>", message)
    assert MESSAGES[0].startswith(b"<85>1 ")


@pytest.mark.parametrize(
    ("url", "port"),
    [("tls://a", 6514), ("tcp://a", 601), ("udp://a", 514), ("tls://a:7000", 7000), ("tcp://[::1]:9/", 9)],
)
def test_each_way_has_its_port(url: str, port: int) -> None:
    assert Repository.of(url).port == port


def test_messages_come_as_they_were_and_in_order() -> None:
    with Receiver() as there:
        deliver(at(there.port), MESSAGES, tls=None)
        deliver(at(there.port), ["<AuditMessage>ä\n</AuditMessage>".encode()], tls=None)
    assert there.messages == [*MESSAGES, "<AuditMessage>ä\n</AuditMessage>".encode()]


def test_over_udp_each_message_is_a_datagram() -> None:
    with Datagrams() as there:
        deliver(at(there.port, "udp"), MESSAGES[:2], tls=None)
        assert [there.next(), there.next()] == MESSAGES[:2]


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(PeerUnreachable, match=r"127\.0\.0\.1:\d+ \(tcp\): Connection refused"):
        deliver(at(port), MESSAGES, tls=None)


@pytest.mark.parametrize("secure", [False, True])
def test_what_breaks_off_in_the_middle_was_not_taken(secure: bool, authority: Authority) -> None:
    tls = mutual(authority.issue("repository"), authority) if secure else None
    with Receiver(tls=tls) as there:
        there.break_after = 4
        with pytest.raises(PeerUnreachable, match="closed before all was read"):
            deliver(
                at(there.port, "tls" if secure else "tcp"), MESSAGES * 50, tls=client(authority) if secure else None
            )
        assert there.messages == MESSAGES[:4]


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_ends_in_order_before_all_was_read_is_no_receipt(secure: bool, authority: Authority) -> None:
    tls = mutual(authority.issue("repository"), authority) if secure else None
    with Receiver(tls=tls) as there:
        there.absent = True
        with pytest.raises(PeerUnreachable, match="closed before all was read"):
            deliver(
                at(there.port, "tls" if secure else "tcp"), MESSAGES * 60, tls=client(authority) if secure else None
            )


def test_what_is_read_without_an_end_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "_SEND_S", 0.2)
    with Receiver() as there:
        there.mute = True
        with pytest.raises(PeerUnreachable, match="no answer in time"):
            deliver(at(there.port), MESSAGES, tls=None)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "Hospital")


def client(authority: Authority, *, anonymous: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.certificate)
    if not anonymous:
        identity = authority.issue("node")
        context.load_cert_chain(identity.certificate, identity.key)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_over_tls_messages_come_and_their_end_is_confirmed(authority: Authority, version: ssl.TLSVersion) -> None:
    tls = mutual(authority.issue("repository"), authority)
    tls.maximum_version = version
    with Receiver(tls=tls) as there:
        deliver(at(there.port, "tls"), MESSAGES, tls=client(authority))
        probe(at(there.port, "tls"), tls=client(authority))
    assert there.messages == MESSAGES


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_repository_that_wants_a_certificate_takes_nothing_without(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the caller is done before it is turned away: what it sent by then must not count."""
    tls = mutual(authority.issue("repository"), authority)
    tls.maximum_version = version
    with Receiver(tls=tls) as there, pytest.raises(PeerUnreachable):
        deliver(at(there.port, "tls"), MESSAGES, tls=client(authority, anonymous=True))
    assert there.messages == []


@pytest.mark.parametrize(
    ("name", "days", "words"),
    [("IP:127.0.0.1", -1, "certificate has expired"), ("DNS:elsewhere", 2, "IP address mismatch")],
)
def test_a_certificate_that_does_not_hold_is_said(authority: Authority, name: str, days: int, words: str) -> None:
    tls = mutual(authority.issue("repository", name, days=days), authority)
    with Receiver(tls=tls) as there, pytest.raises(PeerUnreachable, match=f"not accepted here.*{words}"):
        deliver(at(there.port, "tls"), MESSAGES, tls=client(authority))
    assert there.messages == []


def test_a_certificate_of_another_authority_is_said(authority: Authority, tmp_path: Path) -> None:
    rogue = Authority(tmp_path, "Somebody")
    with Receiver(tls=mutual(rogue.issue("repository"), authority)) as there:
        with pytest.raises(PeerUnreachable, match="not accepted here"):
            deliver(at(there.port, "tls"), MESSAGES, tls=client(authority))
        assert there.messages == []
