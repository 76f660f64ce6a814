import re
from pathlib import Path

import pytest

from node.errors import ConfigurationError
from node.settings import Peer, Settings, Site, doubtful_names

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
        (("[[route]]", '[[analysis]]\nname = "low_dose_ct"\nstate = "off"\n[[route]]'), 'state = "off" needs a reason'),
        (("[[route]]", '[[analysis]]\nname = "ct"\n[[route]]'), "analysis.0.name"),
        (("[[route]]", 2 * '[[analysis]]\nname = "low_dose_ct"\n' + "[[route]]"), "analysis low_dose_ct stands twice"),
        (("[[route]]", '[[analysis]]\nname = "chest_xray"\nreason = "a\\nb"\n[[route]]'), "one line of text"),
        (('"10.1.0.0/16"', '"10.1.0.0/16"\nport = 104'), "is a network"),
        (('"10.1.0.0/16"', '"10.1.0.1"\ncompletion = { quiet_s = inf }'), "quiet_s"),
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


def test_files_that_are_not_text_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latin1"
    path.write_bytes(b'[[peer]]\naet = "\xe9"\n')
    with pytest.raises(ConfigurationError, match="not text in UTF-8"):
        Site.read(path)
    monkeypatch.setenv("PACSNODE_DATABASE_URL_FILE", str(path))
    with pytest.raises(ConfigurationError, match=r"PACSNODE_DATABASE_URL_FILE: .* is not text in UTF-8"):
        Settings.load()


@pytest.mark.parametrize(
    "url", ["", "redis://h", "rediss://:p%2Fw@h:6380/2", "redis://[::1]:6379/", "redis+socket:///r"]
)
def test_takes_broker_urls(url: str) -> None:
    assert Settings.load(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url", ["redis", "amqp://:geheim@h", "redis://:geheim@h:x", "redis://:geheim@h/x", "redis+socket:"]
)
def test_refuses_other_broker_urls_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigurationError, match="a broker URL is redis://") as caught:
        Settings.load(redis_url=url)
    assert "geheim" not in caught.value.reason


@pytest.mark.parametrize("given", [{"overdue_s": float("inf")}, {"lease_s": 1e30}, {"tls_port": 65536}])
def test_refuses_what_no_clock_and_no_socket_takes(given: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="less than or equal to"):
        Settings.load(**given)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PACSNODE_DATABSE_URL", "PACSNODE_DATABASE_URL"),
        ("PACSNODE_KEEPDAYS", "PACSNODE_KEEP_DAYS"),
        ("PACSNODE_REDIS_URL_FIL", "PACSNODE_REDIS_URL_FILE"),
        ("pacsnode_prt", "PACSNODE_PORT"),
    ],
)
def test_a_mistyped_name_is_said_with_the_nearest_one(name: str, meant: str) -> None:
    assert doubtful_names([name, "PATH"]) == [
        f"{name} is not a setting of the node and changes nothing; did you mean {meant}?"
    ]


def test_a_secret_that_is_given_twice_is_said_with_the_one_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"PACSNODE_DATABASE_URL": "sqlite:///one", "PACSNODE_DATABASE_URL_FILE": str(tmp_path / "url")}
    (tmp_path / "url").write_text("sqlite:///other", encoding="utf8")
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert doubtful_names(names) == ["PACSNODE_DATABASE_URL is given twice: PACSNODE_DATABASE_URL_FILE counts"]
    assert Settings.load().database_url == "sqlite:///other"


def test_a_name_like_none_is_said_alone() -> None:
    assert doubtful_names(["PACSNODE_QQQ"]) == ["PACSNODE_QQQ is not a setting of the node and changes nothing"]


def test_every_name_that_is_read_is_known() -> None:
    root = Path(__file__).parents[2]
    compose = " ".join(file.read_text(encoding="utf8") for file in (root / "deploy/compose").glob("*.yaml"))
    names = set(re.findall(r"PACSNODE_[A-Z_]*[A-Z]", compose)) - {"PACSNODE_NAME"} | {
        f"PACSNODE_{n.upper()}" for n in Settings.model_fields
    }
    said = doubtful_names(names | {"pacsnode_port", "PACSNODES", "HOME"})
    assert [one for one in said if "is given twice" not in one] == []


@pytest.mark.parametrize("url", ["", "tls://audit.hospital", "tcp://10.1.2.3:601", "udp://[::1]:514", "tls://a:6514/"])
def test_an_audit_repository_is_a_scheme_and_a_host(url: str) -> None:
    assert Settings.load(audit_url=url).audit_url == url


@pytest.mark.parametrize(
    "url", ["http://a", "tls://", "audit.hospital:6514", "tls://a:0", "tls://a:x", "tls://me:secret@a", "tls://a/x"]
)
def test_any_other_audit_repository_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="an audit repository is tls://") as caught:
        Settings.load(audit_url=url)
    assert "secret" not in caught.value.reason


@pytest.mark.parametrize("token", ["short", "x" * 19, "with spaces " * 4, "é" * 30])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused_without_repeating_it(token: str) -> None:
    with pytest.raises(ConfigurationError, match="20 printable ASCII") as caught:
        Settings.load(audit_token=token)
    assert token not in caught.value.reason
