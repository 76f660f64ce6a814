from pathlib import Path

import pytest

from node.errors import ConfigurationError
from node.settings import Peer, Settings, Site

GOOD = """
[[peer]]
aet = "PACS"
host = "127.0.0.1"
port = 104

[[peer]]
aet = "CT2"
host = "10.1.0.0/16"

[[route]]
from = "CT2"
to = ["PACS"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


def test_reads_peers_and_routes(tmp_path: Path) -> None:
    site = Site.read(written(tmp_path, GOOD))
    assert [peer.aet for peer in site.peers] == ["PACS", "CT2"]
    assert site.routes[0].destinations == ("PACS",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('to = ["PACS"]', 'to = ["PACS2"]'), "no such peer"),
        (('from = "CT2"', 'from = "CT3"'), "no such peer"),
        (('to = ["PACS"]', 'to = ["CT2"]'), "no port"),
        (('aet = "CT2"', 'aet = "PACS"'), "stands twice"),
        (("port = 104", "port = 104000"), "peer.0.port"),
        (("port = 104", "prt = 104"), "peer.0.prt"),
        (('aet = "CT2"', 'aet = "A TITLE THAT IS TOO LONG"'), "AE title"),
        (("[[route]]", "[[route"), "not TOML"),
    ],
)
def test_says_what_is_wrong_with_a_site_file(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Site.read(written(tmp_path, GOOD.replace(*change)))


def test_a_missing_site_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Site.read(tmp_path / "none.toml")


def test_a_network_lets_its_hosts_in_and_no_other() -> None:
    peer = Peer(aet="CT2", host="10.1.0.0/16")
    assert peer.calls_from("10.1.200.3")
    assert not peer.calls_from("10.2.0.3")


def test_a_name_is_looked_up_and_mapped_addresses_are_seen_through() -> None:
    peer = Peer(aet="CT2", host="localhost")
    assert peer.calls_from("127.0.0.1")
    assert peer.calls_from("::ffff:127.0.0.1")
    assert not peer.calls_from("192.0.2.1")


def test_a_host_that_does_not_resolve_lets_nobody_in() -> None:
    with pytest.raises(OSError):
        Peer(aet="CT2", host="no-such-host.invalid").calls_from("127.0.0.1")


def test_a_secret_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://node:secret@db/node\n")
    monkeypatch.setenv("PACSNODE_DATABASE_URL_FILE", str(secret))
    assert Settings.load().sqlalchemy_url == "postgresql+psycopg://node:secret@db/node"


def test_a_missing_secret_file_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_DATABASE_URL_FILE", "/no/such/file")
    with pytest.raises(ConfigurationError, match="DATABASE_URL_FILE"):
        Settings.load()


def test_a_wrong_value_names_its_setting() -> None:
    with pytest.raises(ConfigurationError, match="port"):
        Settings.load(port=70000)


def test_maps_of_radiographs_are_made_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().radiograph_maps is False
    monkeypatch.setenv("PACSNODE_RADIOGRAPH_MAPS", "true")
    assert Settings.load().radiograph_maps is True
