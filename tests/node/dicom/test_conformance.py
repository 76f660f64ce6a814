"""The conformance statement against what the node does: a started receiver, peers that listen, objects as made."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID_dictionary
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from gate import made
from models.contract import Map, Radiograph
from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, ct_image, write
from network.pacs import pynetdicom_scp
from network.raw import RELEASE_RQ, associate_rq, associated, command, connected, message, store_rq
from node import errors
from node.dicom import commit, retrieve, session, status
from node.dicom.association import MOST_CONTEXTS
from node.dicom.commit import COMMITMENT_INSTANCE, request_commitment
from node.dicom.conformance import C_STORE, C_STORE_OF_HARVEST, EVENT_REPORT, OTHER, Border, Made, Named, border
from node.dicom.header import read_header
from node.dicom.holdings import find_objects, find_series, find_studies
from node.dicom.marks import shelf
from node.dicom.negotiation import STORAGE_COMMITMENT, VERIFICATION
from node.dicom.query import echo, find_instances
from node.dicom.receive import StorageScp
from node.dicom.reconcile import find_identity
from node.dicom.retrieve import Destination, get_series, move_series
from node.dicom.send import Outgoing, send
from node.errors import NodeError, OutOfResources, Refused, UnknownCaller, WrongCalledTitle
from node.settings import VERSION as OUR_VERSION
from node.settings import Peer, Settings
from system.processes import free_port

StartScp = Callable[..., StorageScp]
T = TypeVar("T")
SETTINGS = Settings(aet="NODE", host="127.0.0.1", dimse_timeout_s=10)


@pytest.fixture(scope="module")
def told() -> Border:
    return border()


def uids(names: Sequence[Named]) -> list[str]:
    return [one.uid for one in names]


def in_parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many as an association has contexts."""
    for start in range(0, len(things), MOST_CONTEXTS):
        yield things[start : start + MOST_CONTEXTS]


def agreed(port: int, contexts: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of (abstract syntax, transfer syntax) that the receiver accepts."""
    ae = AE("CALLER")
    found: set[tuple[str, str]] = set()
    for some in in_parts(contexts):
        proposed = [build_context(*one) for one in some]
        association = ae.associate("127.0.0.1", port, ae_title="PACSNODE", contexts=proposed)
        found |= {(str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts}
        association.release() if association.is_established else association.abort()
    return found


# what is accepted


def test_an_object_of_every_class_that_is_said_to_be_accepted_is_stored(
    told: Border, scp: StorageScp, desk: RecordingDesk
) -> None:
    classes = uids(told.accepted_classes)
    for some in in_parts(classes):
        with associated(scp.port, contexts=[(uid, (EXPLICIT,)) for uid in some]) as peer:
            for place, uid in enumerate(some):
                peer.say(message(2 * place + 1, store_rq(f"1.2.{place}", sop_class=uid), b"data"))
                assert peer.hear_status() == status.SUCCESS, uid
            peer.say(RELEASE_RQ)
            assert peer.hear()[0] == 6
    assert [taken.arrival.sop_class_uid for taken in desk.taken] == classes


def test_of_all_classes_of_dicom_those_are_accepted_that_the_statement_says(told: Border, scp: StorageScp) -> None:
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind in ("SOP Class", "Meta SOP Class")}
    ours, younger = "1.2.826.0.1.3680043.10.511.9", "1.2.840.10008.5.1.4.1.1.77777"
    expected = {*uids(told.accepted_classes), VERIFICATION, STORAGE_COMMITMENT, ours, younger}
    expected |= {uid for uid in known if uid.startswith("1.2.840.10008.5.1.4.1.1.")}
    proposed = sorted({*known, *expected})
    assert len(set(proposed) - expected) > 100, "many are none of storage"
    assert agreed(scp.port, [(uid, EXPLICIT) for uid in proposed]) == {(uid, EXPLICIT) for uid in expected}


def test_of_all_transfer_syntaxes_those_are_accepted_that_the_statement_says(told: Border, scp: StorageScp) -> None:
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}
    said = set(uids(told.accepted_syntaxes))
    assert said < known
    proposed = sorted({*known, "1.2.826.0.1.3680043.10.511.8"})
    assert agreed(scp.port, [(CT, syntax) for syntax in proposed]) == {(CT, syntax) for syntax in said}


def test_of_the_association_the_node_says_what_the_statement_says_and_answers_no_other_offer(
    told: Border, scp: StorageScp
) -> None:
    window, extended, identity = (
        AsynchronousOperationsWindowNegotiation(),
        SOPClassExtendedNegotiation(),
        UserIdentityNegotiation(),
    )
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 3
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\x02\x00\x03\x00\x01\x00"
    identity.user_identity_type, identity.primary_field = 1, b"somebody"
    identity.positive_response_requested = True
    ae = AE("CALLER")
    offers = [window, extended, identity]
    contexts = [build_context(CT, EXPLICIT)]
    association = ae.associate("127.0.0.1", scp.port, ae_title="PACSNODE", contexts=contexts, ext_neg=offers)
    try:
        assert association.is_established
        answered = association.acceptor.primitive.user_information
        assert not {type(one) for one in offers} & {type(one) for one in answered}
        assert association.acceptor.implementation_class_uid == told.implementation_class_uid
        assert association.acceptor.implementation_version_name == told.implementation_version_name
        assert str(association.acceptor.primitive.application_context_name) == told.application_context
        assert association.acceptor.maximum_length == Settings.model_fields["max_pdu"].default
    finally:
        association.release()


# what is answered


def leaves(kind: type[NodeError]) -> Iterator[type[NodeError]]:
    for below in kind.__subclasses__():
        yield from leaves(below) if below.__subclasses__() else (below,)


def test_every_status_of_c_store_is_provoked_and_no_other(told: Border, scp: StorageScp, desk: RecordingDesk) -> None:
    wrong = [kind("why") for kind in leaves(NodeError) if kind.__module__ == errors.__name__]
    answers = set()
    with associated(scp.port) as peer:
        for number, error in enumerate([None, RuntimeError("a fault"), *wrong]):
            desk.on_take = lambda _, error=error: raised(error)  # type: ignore[misc]
            peer.say(message(1, store_rq(f"1.2.{number}"), b"data"))
            answers.add(f"{peer.hear_status():04X}")
    assert answers == {answer.code for answer in told.answers[C_STORE]}


def raised(error: Exception | None) -> None:
    if error is not None:
        raise error


def test_what_is_no_service_of_ours_is_answered_as_the_statement_says(told: Border, scp: StorageScp) -> None:
    with associated(scp.port) as peer:
        peer.say(message(3, command(e0003=VERIFICATION, e0100=0x0130, e0110=5, e0800=0x0101, e1001="1.2.3")))
        assert [f"{peer.hear_status():04X}"] == [answer.code for answer in told.answers[OTHER]]


@pytest.mark.parametrize(
    ("operation", "functions"),
    [
        (EVENT_REPORT, (session.Session.event_report, commit._Reports.heard)),
        (C_STORE_OF_HARVEST, (retrieve._Intake._take,)),
    ],
)
def test_the_statuses_of_the_code_are_those_of_the_statement(
    told: Border, operation: str, functions: Sequence[Callable[..., object]]
) -> None:
    said = {int(answer.code, 16) for answer in told.answers[operation]}
    assert {code for function in functions for code in named_statuses(inspect.getsource(function))} == said


def test_no_module_that_answers_names_a_status_that_the_statement_lacks(told: Border) -> None:
    said = {int(answer.code, 16) for answers in told.answers.values() for answer in answers}
    heard = {status.MOVE_DESTINATION_UNKNOWN}  # a peer's
    for module in (session, commit, retrieve):
        assert named_statuses(inspect.getsource(module)) - heard <= said, module.__name__


def named_statuses(source: str) -> set[int]:
    """Values of `status.NAME` in it, but for those that are no DIMSE status."""
    found = (
        getattr(status, node.attr)
        for node in ast.walk(ast.parse(textwrap.dedent(source)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "status"
    )
    return {value for value in found if isinstance(value, int)}


def test_every_status_of_a_peer_is_what_the_statement_says(told: Border) -> None:
    done, warning, later, never = (set(codes(answer.code)) for answer in told.taken)
    assert not never, "the last is every other"
    for code in range(0x10000):
        error = status.peer_error(code, "C-STORE")
        assert (error is None) == (code in done | warning)
        assert isinstance(error, errors.PeerBusy) == (code in later)
        assert status.is_warning(code) == (code in warning)


def codes(text: str) -> Iterator[int]:
    for part in [] if text == "every other" else text.split(", "):
        first, _, last = part.partition(" to ")
        yield from range(int(first, 16), int(last or first, 16) + 1)


# whom the receiver turns away


def test_every_rejection_is_provoked_and_no_other(told: Border, start_scp: StartScp, desk: RecordingDesk) -> None:
    scp = start_scp(max_associations=1)
    found = [
        rejected(scp.port, application="1.2.3"),
        rejected(scp.port, version=2),
    ]
    for error in (UnknownCaller("no"), WrongCalledTitle("no"), OutOfResources("no"), RuntimeError("a fault of ours")):
        desk.on_admit = lambda _, error=error: raised(error)  # type: ignore[misc]
        found.append(rejected(scp.port))
    desk.on_admit = lambda _: None
    with associated(scp.port):
        found.append(rejected(scp.port))
    assert sorted(found) == [(one.result, one.source, one.reason) for one in told.rejections]


def rejected(port: int, **request: object) -> tuple[int, int, int]:
    with connected(port) as peer:
        peer.say(associate_rq(**request))  # type: ignore[arg-type]
        kind, body = peer.hear()
        assert kind == 3, f"PDU of type {kind}"
        return body[1], body[2], body[3]


def test_every_error_by_which_a_caller_is_not_admitted_has_its_rejection(told: Border) -> None:
    said = {(one.result, one.source, one.reason) for one in told.rejections}
    assert set(status.REJECTION_OF.values()) <= said


# what is proposed


def proposed_by(call: Callable[[Peer], object], handlers: Sequence[tuple[Any, ...]] = ()) -> dict[str, list[str]]:
    """Abstract syntaxes, each with its transfer syntaxes, that are proposed to a PACS which takes all."""
    heard: dict[str, list[str]] = {}

    def requested(event: Any) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            heard.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))

    told = border()
    offered = {context.uid for proposal in told.proposals for context, _ in proposal.contexts}
    contexts = [(uid, [EXPLICIT]) for uid in sorted(offered)]
    with pynetdicom_scp(contexts, [(evt.EVT_REQUESTED, requested), *handlers]) as peer, suppress(NodeError):
        call(peer)
    return {uid: list(dict.fromkeys(syntaxes)) for uid, syntaxes in heard.items()}


def find_calls(peer: Peer) -> None:
    find_identity(SETTINGS, peer, "1.2")
    find_instances(SETTINGS, peer, "1.2", ["1.2.3"])
    find_studies(SETTINGS, peer, dates="20260101-20260131", patient_ids=["P"])
    find_series(SETTINGS, peer, "1.2")
    find_objects(SETTINGS, peer, "1.2", "1.2.3")


def test_what_is_proposed_is_what_the_statement_says(told: Border, tmp_path: Path) -> None:
    results = [
        Outgoing(tmp_path / "none", one.uid, "1.2.3", EXPLICIT)
        for one in dict.fromkeys(each for kind in told.made for each in kind.classes)
    ]
    series = ("1.2", "1.2.3", tmp_path)
    to = Destination("NODE", free_port())
    calls: list[Callable[[Peer], object]] = [
        lambda peer: send(SETTINGS, peer, results),
        lambda peer: request_commitment(SETTINGS, peer, "1.2.3", [(CT, "1.2.3")]),
        find_calls,
        lambda peer: echo(SETTINGS, peer),
        lambda peer: get_series(SETTINGS, peer, *series, contexts=[]),
        lambda peer: move_series(SETTINGS, peer, *series, contexts=[], to=to),
    ]
    handlers = [(evt.EVT_C_FIND, lambda _: iter([(0x0000, None)])), (evt.EVT_N_ACTION, lambda _: (0x0110, None))]
    assert len(told.proposals) == len(calls) + 1
    for call, proposal in zip(calls, told.proposals, strict=False):
        said = {context.uid: uids(syntaxes) for context, syntaxes in proposal.contexts}
        assert proposed_by(call, handlers) == said, proposal.purpose


def test_what_is_stored_with_us_by_a_retrieval_is_what_the_statement_says(told: Border, tmp_path: Path) -> None:
    proposal = told.proposals[-1]
    said = {context.uid: uids(syntaxes) for context, syntaxes in proposal.contexts}
    assert proposal.role == "SCP"
    heard: dict[str, list[str]] = {}
    for contexts in (shelf.IMAGES, shelf.DOCUMENTS):

        def call(peer: Peer, contexts: Any = contexts) -> object:
            return get_series(SETTINGS, peer, "1.2", "1.2.3", tmp_path, contexts=contexts)

        heard |= proposed_by(call)
    assert {uid: syntaxes for uid, syntaxes in heard.items() if uid in said} == said
    assert len(heard) == len(said) + 1, "and C-GET itself"


def test_identifiers_of_queries_hold_what_the_statement_says(told: Border) -> None:
    asked: list[tuple[str, set[str]]] = []

    def on_find(event: Any) -> Iterator[Any]:
        keys = event.identifier
        asked.append((str(keys.QueryRetrieveLevel), {element.keyword for element in keys}))
        yield 0x0000, None

    proposed_by(find_calls, [(evt.EVT_C_FIND, on_find)])
    assert asked == [(keys.level, set(keys.keywords)) for keys in told.query_keys]


def test_commitment_is_asked_of_the_instance_that_the_statement_names(told: Border) -> None:
    asked: list[tuple[str, int]] = []

    def on_action(event: Any) -> tuple[int, None]:
        asked.append((str(event.request.RequestedSOPInstanceUID), event.action_type))
        return 0x0110, None

    proposed_by(
        lambda peer: request_commitment(SETTINGS, peer, "1.2.3", [(CT, "1.2.3")]), [(evt.EVT_N_ACTION, on_action)]
    )
    assert asked == [(told.commitment_instance, 1)] == [(COMMITMENT_INSTANCE, 1)]


# what is made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[made.Run]:
    """Everything that the writers make, of every class that is analysed."""
    folder = tmp_path_factory.mktemp("runs")
    found = [made.process(made.ct_series(folder / "ct", BodyPartExamined="CHEST"), lesions=2)]
    for place, sop_class in enumerate((made.CR, made.DX, made.DX_PROCESSING)):
        paths = made.radiograph(folder / str(place), sop_class=sop_class)
        found.append(made.process(paths, lesions=1, pipeline=with_maps))
    return found


def with_maps(grid: Any) -> Any:
    assert isinstance(grid, Radiograph)
    one = Map("change", np.zeros_like(grid.pixels), "Change", (-1.0, 1.0), "stored values", "Explained.", made.MODEL)
    found = made.findings(grid, lesions=1)
    return replace(found, images=(made.denoised(grid.pixels, "restored"),), maps=(one,))


def is_of(kind: Made, ds: Any, result_kind: str, base: int, source_number: int) -> bool:
    """Whether the statement's line tells of this object."""
    if kind.number is None:
        number = ds.SeriesNumber == base
    else:
        first, _, last = kind.number.partition(" to ")
        number = int(first) <= ds.SeriesNumber - base - 10 * source_number <= int(last or first)
    said = kind.description.split(", ")
    return (
        kind.kind == result_kind
        and str(ds.SOPClassUID) in uids(kind.classes)
        and kind.modality in (ds.Modality, "of the source")
        and number
        and any(ds.SeriesDescription.startswith(words) for words in said)
    )


def test_the_writers_make_what_the_statement_says_and_nothing_else(told: Border, runs: list[made.Run]) -> None:
    seen = set()
    for run in runs:
        for result in run.results:
            ds = pydicom.dcmread(io.BytesIO(result.data))
            fit = [kind for kind in told.made if is_of(kind, ds, result.kind, 9000, run.source.first.SeriesNumber)]
            # the page of a report begins as the report does
            assert fit, (result.kind, ds.SeriesNumber, ds.SeriesDescription)
            seen |= {(kind.what, str(ds.SOPClassUID)) for kind in fit}
            assert ds.file_meta.TransferSyntaxUID == EXPLICIT
    assert seen == {(kind.what, uid) for kind in told.made for uid in uids(kind.classes)}


def test_no_object_that_is_made_has_a_private_attribute(runs: list[made.Run]) -> None:
    for ds in (pydicom.dcmread(io.BytesIO(result.data)) for run in runs for result in run.results):
        assert not [element.tag for element in ds.iterall() if element.tag.is_private]


def test_presentation_states_say_how_they_are_to_be_shown_as_the_statement_says(runs: list[made.Run]) -> None:
    states = [pydicom.dcmread(io.BytesIO(one.data)) for run in runs for one in run.results if one.kind == "gsps"]
    assert len(states) == len(runs)
    assert {state.PresentationLUTShape for state in states} == {"IDENTITY"}


def test_reports_name_the_templates_of_the_statement(told: Border, runs: list[made.Run]) -> None:
    found = {
        str(element.value)
        for run in runs
        for report in run.reports
        for element in pydicom.dcmread(io.BytesIO(report.data)).iterall()
        if element.keyword == "TemplateIdentifier"
    }
    assert found == set(told.templates)


def test_study_attributes_are_copied_and_others_left_out_as_the_statement_says(told: Border, tmp_path: Path) -> None:
    given = {"AccessionNumber": "A-7", "StudyDescription": "Thorax", "AdmissionID": "17", "OperatorsName": "Doe^J"}
    paths = made.ct_series(tmp_path, slices=3, PatientAge="061Y", HistogramSequence=[], **given)
    for result in made.process(paths).results:
        ds = pydicom.dcmread(io.BytesIO(result.data))
        for keyword in (*given, "PatientAge"):
            if keyword in told.copied or keyword == "PatientAge":
                assert ds[keyword].value == ({**given, "PatientAge": "061Y"})[keyword], (result.kind, keyword)
        if result.kind == "derived":
            assert {"OperatorsName", "HistogramSequence"} <= set(told.left_out)
            assert "OperatorsName" not in ds
            assert "HistogramSequence" not in ds


def test_own_equipment_stands_in_what_is_made_as_the_statement_names_it(runs: list[made.Run]) -> None:
    for ds in (pydicom.dcmread(io.BytesIO(result.data)) for run in runs for result in run.results):
        last = ds.ContributingEquipmentSequence[-1]
        assert last.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert OUR_VERSION in last.SoftwareVersions


# what is read


LETTERS = {
    "6": "A",
    "13": "ｱ",
    "58": "王",
    "87": "山",
    "100": "é",
    "101": "č",
    "109": "ħ",
    "110": "ģ",
    "126": "Ω",
    "127": "ع",
    "138": "א",
    "144": "Ж",
    "148": "ğ",
    "149": "김",
    "159": "丂",
    "166": "ก",
    "192": "김",
    "GB18030": "王",
    "GBK": "王",
}
"""One of each set, by the number of its registration."""


def test_every_character_set_of_the_statement_is_read(told: Border, tmp_path: Path) -> None:
    for place, term in enumerate(told.character_sets):
        letter = LETTERS[term.split()[-1]]
        image = ct_image(place + 1)
        image.SpecificCharacterSet = ["", term] if term.startswith("ISO 2022") and letter != "A" else term
        image.PatientName = f"Test^{letter}"
        assert read_header(write(image, tmp_path / f"{place}.dcm")).patient_name == f"Test^{letter}", term
    assert not {"ISO 2022 58", "ISO 2022 GBK"} & set(told.character_sets), "no defined terms"


def test_all_refusals_have_a_code_that_the_statement_explains(told: Border) -> None:
    said = {int(answer.code, 16) for answer in told.answers[C_STORE]}
    assert {status.status_of(kind("why")) for kind in leaves(Refused)} < said
