"""DICOM TLS on both sides: mutual, 1.2 at least, names checked."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from network.certificates import Authority
from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, STUDY, ct_image, data_set_of, write
from network.raw import PATIENCE_S, RawPeer, associate_rq, connected, echo_rq, message, store_rq
from node.dicom.query import echo
from node.dicom.receive import StorageScp
from node.dicom.send import Outgoing, send
from node.dicom.tls import ServerContexts, client_context, ends, server_context
from node.errors import ConfigurationError, PeerRefused, PeerUnreachable
from node.settings import Peer, Settings
from system.dcmtk import run

StartScp = Callable[..., StorageScp]


def tls_settings(authority: Authority, name: str, alternative: str = "IP:127.0.0.1", **more: object) -> Settings:
    identity = authority.issue(name, alternative)
    return Settings(
        tls_certificate=identity.certificate, tls_key=identity.key, tls_authorities=authority.certificate, **more
    )


@pytest.fixture
def scp(start_scp: StartScp, authority: Authority) -> StorageScp:
    node = tls_settings(authority, "node")
    return start_scp(
        tls_port=0,
        tls_certificate=node.tls_certificate,
        tls_key=node.tls_key,
        tls_authorities=node.tls_authorities,
        tls_handshake_timeout_s=2.0,
        association_timeout_s=2.0,
    )


def peer_of(scp: StorageScp, host: str = "127.0.0.1") -> Peer:
    return Peer(aet="PACSNODE", host=host, port=scp.tls_port, tls=True)


def test_a_caller_of_our_authority_is_served_and_named(
    scp: StorageScp, desk: RecordingDesk, authority: Authority, tmp_path: Path
) -> None:
    path = write(ct_image(side=400), tmp_path / "image.dcm")
    outgoing = Outgoing(path, CT, f"{STUDY}.1.1", EXPLICIT)
    (sent,) = send(tls_settings(authority, "ct2"), peer_of(scp), [outgoing])
    assert (sent.status, sent.error) == (0, None)
    assert data_set_of(desk.taken[0].file) == data_set_of(path.read_bytes())
    assert desk.callers[0].tls_subject == "CN=ct2,O=Radiology"


def test_dcmtk_stores_over_tls(scp: StorageScp, desk: RecordingDesk, authority: Authority, tmp_path: Path) -> None:
    path = write(ct_image(side=400), tmp_path / "image.dcm")
    identity = authority.issue("storescu")
    tls = ["+tls", identity.key, identity.certificate, "+cf", authority.certificate]
    answer = run("storescu", "-v", *tls, "127.0.0.1", scp.tls_port, path)
    assert answer.ok, answer.text
    assert data_set_of(desk.taken[0].file) == data_set_of(path.read_bytes())


def test_the_plain_port_stays_plain(scp: StorageScp, desk: RecordingDesk) -> None:
    echo(Settings(), Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port))
    assert desk.callers[0].tls_subject is None


def refused(scp: StorageScp, desk: RecordingDesk, context: ssl.SSLContext, *, because: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(scp, context)
    desk.wait(lambda desk: desk.strangers)
    ((host, reason),) = desk.strangers
    assert (host, because in reason) == ("127.0.0.1", True), reason
    assert desk.callers == []


def ask(scp: StorageScp, context: ssl.SSLContext) -> None:
    """TLS 1.3 lets a client believe that it is connected until it reads."""
    with (
        socket.create_connection(("127.0.0.1", scp.tls_port), timeout=PATIENCE_S) as sock,
        context.wrap_socket(sock) as wrapped,
    ):
        wrapped.sendall(associate_rq())
        if not wrapped.recv(1):
            raise ConnectionError("closed")


def client(authority: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if authority is not None:
        identity = authority.issue("caller")
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def test_refuses_a_certificate_of_somebody_else(
    scp: StorageScp, desk: RecordingDesk, rogue_authority: Authority
) -> None:
    refused(scp, desk, client(rogue_authority), because="its certificate does not hold (unable to get")


def test_refuses_a_caller_without_a_certificate(scp: StorageScp, desk: RecordingDesk) -> None:
    refused(scp, desk, client(), because="peer did not return a certificate")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_refuses_tls_1_1(scp: StorageScp, desk: RecordingDesk, authority: Authority) -> None:
    context = client(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    refused(scp, desk, context, because="unsupported protocol")


def test_refuses_suites_without_forward_secrecy(scp: StorageScp, desk: RecordingDesk, authority: Authority) -> None:
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES256-GCM-SHA384:ECDHE-ECDSA-AES256-SHA")
    refused(scp, desk, context, because="no shared cipher")


def test_refuses_plain_dicom_on_the_tls_port(scp: StorageScp, desk: RecordingDesk) -> None:
    with connected(scp.tls_port) as peer:
        peer.say(associate_rq())
        assert peer.is_closed()
    desk.wait(lambda desk: desk.strangers)
    assert desk.callers == []


def test_who_connects_and_leaves_was_not_turned_away(
    scp: StorageScp, desk: RecordingDesk, authority: Authority
) -> None:
    """As load balancers do, every few seconds."""
    with connected(scp.tls_port):
        pass
    assert echo(tls_settings(authority, "after"), peer_of(scp)).round_trip_s is not None
    assert desk.strangers == []


def test_stalled_handshakes_disturb_nobody(scp: StorageScp, desk: RecordingDesk, authority: Authority) -> None:
    stalled = [connected(scp.tls_port) for _ in range(20)]
    silent = [one.__enter__() for one in stalled]
    try:
        silent[0].say(b"\x16\x03\x01\x02\x00\x01")
        assert echo(tls_settings(authority, "quick"), peer_of(scp)).round_trip_s is not None
        assert all(one.is_closed() for one in silent)  # after the handshake timeout
        assert desk.strangers == []
    finally:
        for one in stalled:
            one.__exit__(None, None, None)


def test_an_object_cut_off_over_tls_is_lost_and_the_next_echo_answered(
    scp: StorageScp, desk: RecordingDesk, authority: Authority
) -> None:
    with socket.create_connection(("127.0.0.1", scp.tls_port), timeout=PATIENCE_S) as sock:
        peer = RawPeer(client(authority).wrap_socket(sock))
        peer.say(associate_rq())
        assert peer.hear()[0] == 2
        peer.say(message(3, echo_rq()))
        assert peer.hear_status() == 0
        peer.say(message(1, store_rq("1.2.3"), bytes(100_000))[:-1])
        peer.sock.close()
    desk.wait(lambda desk: desk.ends)
    assert [loss[1] for loss in desk.losses] == ["1.2.3"]
    assert echo(tls_settings(authority, "next"), peer_of(scp)).round_trip_s is not None


def test_we_do_not_talk_to_a_peer_whose_certificate_names_another_host(
    start_scp: StartScp, authority: Authority, desk: RecordingDesk
) -> None:
    elsewhere = tls_settings(authority, "elsewhere", "DNS:pacs.example")
    scp = start_scp(
        tls_port=0,
        tls_certificate=elsewhere.tls_certificate,
        tls_key=elsewhere.tls_key,
        tls_authorities=elsewhere.tls_authorities,
    )
    with pytest.raises(PeerRefused, match="certificate does not hold"):
        echo(tls_settings(authority, "us"), peer_of(scp))
    assert desk.callers == []


def test_we_do_not_talk_to_a_peer_of_another_authority(scp: StorageScp, rogue_authority: Authority) -> None:
    with pytest.raises(PeerRefused, match="certificate does not hold"):
        echo(tls_settings(rogue_authority, "us"), peer_of(scp))


def test_a_peer_that_speaks_no_tls_is_unreachable(scp: StorageScp, authority: Authority) -> None:
    plain = Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port, tls=True)
    with pytest.raises(PeerUnreachable, match="TLS handshake failed"):
        echo(tls_settings(authority, "us"), plain)


def test_tls_without_certificates_is_a_configuration_error(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match="always mutual"):
        server_context(Settings())
    with pytest.raises(ConfigurationError, match="certificate or key"):
        client_context(Settings(tls_certificate=tmp_path / "none.pem", tls_authorities=authority.certificate))
    identity = authority.issue("half")
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    with pytest.raises(ConfigurationError, match="authorities"):
        server_context(Settings(tls_certificate=identity.certificate, tls_key=identity.key, tls_authorities=broken))


def test_a_renewed_certificate_is_shown_without_a_new_start(
    start_scp: StartScp, authority: Authority, tmp_path: Path
) -> None:
    ended, renewed, files = authority.issue("ended", days=-1), authority.issue("renewed"), tmp_path / "files"
    files.mkdir()

    def install(certificate: Path, key: Path) -> None:
        shutil.copy(certificate, files / "certificate.pem")
        shutil.copy(key, files / "key.pem")

    install(ended.certificate, ended.key)
    scp = start_scp(
        tls_port=0,
        tls_certificate=files / "certificate.pem",
        tls_key=files / "key.pem",
        tls_authorities=authority.certificate,
    )
    us = tls_settings(authority, "us")
    with pytest.raises(PeerRefused, match="certificate has expired"):
        echo(us, peer_of(scp))
    install(renewed.certificate, renewed.key)
    assert echo(us, peer_of(scp)).round_trip_s is not None


def test_half_of_a_renewal_does_not_stop_the_listener(authority: Authority, tmp_path: Path) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    shutil.copy(first.certificate, certificate)
    shutil.copy(first.key, key)
    contexts = ServerContexts(
        Settings(tls_certificate=certificate, tls_key=key, tls_authorities=authority.certificate, tls_port=0)
    )
    before = contexts.newest()
    shutil.copy(second.certificate, certificate)
    assert contexts.newest() is before, "the new certificate does not go with the old key"
    certificate.unlink()
    assert contexts.newest() is before
    shutil.copy(second.certificate, certificate)
    shutil.copy(second.key, key)
    assert contexts.newest() is not before
    assert contexts.newest() is contexts.newest()


@pytest.mark.parametrize("port", [None, 0])
def test_says_when_our_certificate_and_those_of_the_authorities_end(authority: Authority, port: int | None) -> None:
    (whose, at), (theirs, later) = ends(tls_settings(authority, "lasting", tls_port=port))
    assert (whose, theirs.startswith("authority CN=")) == ("our certificate", True)
    for moment in (at, later):
        assert dt.timedelta(days=1) < moment - dt.datetime.now(dt.UTC) < dt.timedelta(days=2, minutes=1)


@pytest.mark.parametrize("port", [None, 0])
def test_a_certificate_of_ours_that_has_ended_does_not_hold(authority: Authority, port: int | None) -> None:
    ended = authority.issue("ended", days=-1)
    settings = Settings(
        tls_certificate=ended.certificate, tls_key=ended.key, tls_authorities=authority.certificate, tls_port=port
    )
    with pytest.raises(ConfigurationError, match="certificate has expired"):
        ends(settings)
