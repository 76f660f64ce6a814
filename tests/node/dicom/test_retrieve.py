"""C-GET and C-MOVE with another make."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, evt

from network.objects import CT, EXPLICIT, STUDY, ct_image
from network.pacs import pynetdicom_scp
from node.dicom.negotiation import VERIFICATION
from node.dicom.retrieve import Destination, get_series, move_series
from node.errors import ConfigurationError, NoCommonContext, PeerBusy, PeerRefused, PeerUnreachable
from node.settings import Peer, Settings
from system.processes import free_port

SETTINGS = Settings(aet="NODE", dimse_timeout_s=10)
GET = "1.2.840.10008.5.1.4.1.2.2.3"
CONTEXTS = [(CT, [EXPLICIT])]


def image_to_send(number: int) -> Dataset:
    image = ct_image(number)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    return image


@contextmanager
def serving(on_get: Callable[[Any], Iterator[Any]]) -> Iterator[Peer]:
    """A PACS that answers C-GET and may store with who asks."""
    ae = AE("PACS")
    ae.add_supported_context(GET, EXPLICIT)
    ae.add_supported_context(CT, EXPLICIT, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_GET, on_get)])
    try:
        yield Peer(aet="PACS", host="127.0.0.1", port=server.server_address[1])
    finally:
        server.shutdown()


def sends(images: Sequence[Dataset], *, last: tuple[int, Dataset | None] | None = None) -> Any:
    def on_get(event: Any) -> Iterator[Any]:
        assert event.identifier.QueryRetrieveLevel == "SERIES"
        assert event.identifier.StudyInstanceUID == STUDY
        yield len(images)
        for image in images:
            yield 0xFF00, image
        if last is not None:
            yield last

    return on_get


def test_the_objects_of_a_series_are_files(tmp_path: Path) -> None:
    seen: list[int] = []
    images = [image_to_send(number) for number in (1, 2, 3)]
    with serving(sends(images)) as peer:
        fetched = get_series(
            SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path / "in", contexts=CONTEXTS, on_object=seen.append
        )
    assert (fetched.failed, seen) == (0, [1, 2, 3])
    for path, image in zip(fetched.paths, images, strict=True):
        back = dcmread(path)
        assert (back.SOPInstanceUID, back.PixelData) == (image.SOPInstanceUID, image.PixelData)
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_the_peer_could_not_send_is_counted(tmp_path: Path) -> None:
    """One of another class than was agreed: pynetdicom's sub-operation fails, and it ends with a warning."""
    foreign = image_to_send(2)
    foreign.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    with serving(sends([image_to_send(1), foreign])) as peer:
        fetched = get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)
    assert (len(fetched.paths), fetched.failed) == (1, 1)


@pytest.mark.parametrize(("status", "kind"), [(0xA701, PeerBusy), (0xA900, PeerRefused), (0xC001, PeerRefused)])
def test_a_failed_get_is_an_error(status: int, kind: type[Exception], tmp_path: Path) -> None:
    def on_get(_: Any) -> Iterator[Any]:
        yield 1
        yield status, None

    with serving(on_get) as peer, pytest.raises(kind, match="C-GET"):
        get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)


def test_what_was_said_to_be_sent_and_did_not_come_is_counted(tmp_path: Path) -> None:
    """Here: twice the same object."""
    with serving(sends([image_to_send(1), image_to_send(1)])) as peer:
        fetched = get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)
    assert (len(fetched.paths), fetched.failed) == (1, 1)


def test_by_get_nothing_is_taken_but_the_series_that_was_asked_for(tmp_path: Path) -> None:
    stranger = image_to_send(2)
    stranger.StudyInstanceUID = "1.2.3.4"
    with serving(sends([image_to_send(1), stranger])) as peer:
        fetched = get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)
    assert (len(fetched.paths), fetched.failed) == (1, 1)
    assert list(tmp_path.iterdir()) == list(fetched.paths)


def test_single_objects_of_a_series_are_asked_for_by_their_uids(tmp_path: Path) -> None:
    asked = []

    def on_get(event: Any) -> Iterator[Any]:
        asked.append((event.identifier.QueryRetrieveLevel, event.identifier.SOPInstanceUID))
        yield 1
        yield 0xFF00, image_to_send(1)

    with serving(on_get) as peer:
        get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS, only=["1.1", "1.2"])
    assert asked == [("IMAGE", ["1.1", "1.2"])]


def test_an_association_that_breaks_is_tried_again_later(tmp_path: Path) -> None:
    def on_get(event: Any) -> Iterator[Any]:
        yield 2
        event.assoc.abort()
        yield 0xFF00, image_to_send(1)

    with serving(on_get) as peer, pytest.raises(PeerUnreachable):
        get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)


def test_a_folder_that_cannot_be_written_is_said_and_not_a_short_series(tmp_path: Path) -> None:
    (tmp_path / f"{ct_image(1).SOPInstanceUID}.dcm").mkdir()
    with serving(sends([image_to_send(1)])) as peer, pytest.raises(ConfigurationError, match="cannot be written"):
        get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)


def test_a_peer_without_get_is_told(tmp_path: Path) -> None:
    with pynetdicom_scp([(CT, [EXPLICIT])], []) as peer, pytest.raises(NoCommonContext, match="C-GET"):
        get_series(SETTINGS, peer, STUDY, f"{STUDY}.1", tmp_path, contexts=CONTEXTS)


MOVE = "1.2.840.10008.5.1.4.1.2.2.2"


@contextmanager
def moving(
    images: Sequence[Dataset],
    *,
    to: tuple[str, int] | None = None,
    last: tuple[int, Dataset | None] | None = None,
    before: Callable[[int], None] = lambda port: None,
) -> Iterator[tuple[Peer, Destination]]:
    """A PACS that answers C-MOVE: to the destination that was named, or elsewhere. `before` is told the port first."""
    free = free_port()

    def on_move(event: Any) -> Iterator[Any]:
        assert event.identifier.QueryRetrieveLevel == "SERIES"
        before(free)
        yield to or ("127.0.0.1", free)
        yield len(images)
        for image in images:
            yield 0xFF00, image
        if last is not None:
            yield last

    ae = AE("PACS")
    ae.add_supported_context(MOVE, EXPLICIT)
    ae.add_requested_context(CT, EXPLICIT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_MOVE, on_move)])
    try:
        yield Peer(aet="PACS", host="127.0.0.1", port=server.server_address[1]), Destination("HARVEST", free)
    finally:
        server.shutdown()


def move(peer: Peer, to: Destination, folder: Path, **options: Any) -> Any:
    listening = SETTINGS.model_copy(update={"host": "127.0.0.1"})
    return move_series(listening, peer, STUDY, f"{STUDY}.1", folder, contexts=CONTEXTS, to=to, **options)


def test_a_series_comes_by_move_to_where_we_listen(tmp_path: Path) -> None:
    seen: list[int] = []
    images = [image_to_send(number) for number in (1, 2, 3)]
    with moving(images) as (peer, to):
        fetched = move(peer, to, tmp_path / "in", on_object=seen.append)
    assert (fetched.failed, seen) == (0, [1, 2, 3])
    assert [dcmread(path).PixelData for path in fetched.paths] == [image.PixelData for image in images]


def test_whoever_is_to_send_may_try_our_listener_by_echo_first(tmp_path: Path) -> None:
    answers: list[int] = []

    def echo(port: int) -> None:
        ae = AE("PACS")
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", port, ae_title="HARVEST")
        answers.append(association.send_c_echo().Status)
        association.release()

    with moving([image_to_send(1)], before=echo) as (peer, to):
        move(peer, to, tmp_path)
    assert answers == [0]


def test_by_move_nothing_is_taken_but_the_series_that_was_asked_for(tmp_path: Path) -> None:
    stranger = image_to_send(2)
    stranger.SeriesInstanceUID = f"{STUDY}.77"
    with moving([image_to_send(1), stranger]) as (peer, to):
        fetched = move(peer, to, tmp_path)
    assert (len(fetched.paths), fetched.failed) == (1, 1)
    assert list(tmp_path.iterdir()) == list(fetched.paths)


def test_an_unknown_destination_is_named(tmp_path: Path) -> None:
    with moving([], to=(None, None)) as (peer, to), pytest.raises(PeerRefused, match="does not know HARVEST"):  # type: ignore[arg-type]
        move(peer, to, tmp_path)


def test_objects_that_went_elsewhere_are_missed(tmp_path: Path) -> None:
    with (
        pynetdicom_scp([(CT, [EXPLICIT])], [(evt.EVT_C_STORE, lambda _: 0)]) as other,
        moving([image_to_send(1)], to=("127.0.0.1", other.port or 0)) as (peer, to),
        pytest.raises(PeerRefused, match="sent 1 objects and none came"),
    ):
        move(peer, to, tmp_path)


def test_a_port_in_use_is_our_trouble(tmp_path: Path) -> None:
    with (
        moving([image_to_send(1)]) as (peer, to),
        socket.create_server(("127.0.0.1", to.port)),
        pytest.raises(ConfigurationError, match=f"port {to.port}"),
    ):
        move(peer, to, tmp_path)


def test_a_peer_without_move_is_told(tmp_path: Path) -> None:
    with pynetdicom_scp([(CT, [EXPLICIT])], []) as peer, pytest.raises(NoCommonContext):
        move(peer, Destination("HARVEST", free_port()), tmp_path)


def test_what_comes_after_the_answer_to_a_move_is_waited_for(tmp_path: Path) -> None:
    """The peer's objects go by a router, which passes them on a while later."""
    free = free_port()

    def pass_on() -> None:
        time.sleep(0.5)
        ae = AE("ROUTER")
        ae.add_requested_context(CT, EXPLICIT)
        association = ae.associate("127.0.0.1", free, ae_title="HARVEST")
        for image in images:
            association.send_c_store(image)
        association.release()

    images = [image_to_send(number) for number in (1, 2)]
    later = threading.Thread(target=pass_on)
    handlers = [(evt.EVT_C_STORE, lambda _: 0x0000), (evt.EVT_RELEASED, lambda _: later.start())]
    with (
        pynetdicom_scp([(CT, [EXPLICIT])], handlers) as router,
        moving(images, to=("127.0.0.1", router.port)) as (peer, _),
    ):
        fetched = move(peer, Destination("HARVEST", free), tmp_path)
        later.join()
    assert (len(fetched.paths), fetched.failed) == (2, 0)
