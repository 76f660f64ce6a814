"""What we take, and what pynetdicom then agrees to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.presentation import build_context, negotiate_as_acceptor
from pynetdicom.sop_class import _STORAGE_CLASSES, CTImageStorage, ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from node.dicom.negotiation import STORAGE_COMMITMENT, TRANSFER_SYNTAXES, is_storage, rejection_in_words, settle

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CT = str(CTImageStorage)


def agree(*contexts: tuple[str, list[str]], roles: dict[str, tuple[bool, bool]] | None = None) -> dict[int, str]:
    """Transfer syntax of each context that is agreed on."""
    proposed = [build_context(abstract, syntaxes) for abstract, syntaxes in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    results, _ = negotiate_as_acceptor(proposed, settle(proposed), roles)
    return {context.context_id: str(context.transfer_syntax[0]) for context in results if context.result == 0}


def test_each_context_is_settled_by_itself() -> None:
    refused = str(ModalityPerformedProcedureStep)
    assert agree((CT, [EXPLICIT]), (refused, [EXPLICIT]), (CT, [IMPLICIT, "1.2.3"]), (CT, ["1.2.3"])) == {
        1: EXPLICIT,
        5: IMPLICIT,
    }


def test_a_pacs_may_be_scp_of_commitment_and_nobody_of_storage() -> None:
    asked = {STORAGE_COMMITMENT: (False, True), CT: (False, True)}
    assert agree((STORAGE_COMMITMENT, [EXPLICIT]), (CT, [EXPLICIT]), roles=asked) == {1: EXPLICIT}


@given(st.lists(st.sampled_from(TRANSFER_SYNTAXES), min_size=1, max_size=5, unique=True))
def test_nothing_is_chosen_that_was_not_proposed(syntaxes: list[str]) -> None:
    chosen = agree((CT, syntaxes))[1]
    assert chosen == syntaxes[0] or (chosen == EXPLICIT and EXPLICIT in syntaxes)


@pytest.mark.parametrize("uid", sorted(_STORAGE_CLASSES.values()))
def test_takes_every_storage_class_that_the_library_knows(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "storage",
        "1.2.840.10008.1.1",
        "1.2.840.10008.5.1.4.1.2.2.1",
        "1.2.840.10008.3.1.2.3.3",
        "1.2.840.10008.5.1.4.31",
    ],
)
def test_other_services_are_not_storage(uid: str) -> None:
    assert not is_storage(uid)


def test_knows_the_syntaxes_of_today() -> None:
    htj2k = {f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)}
    assert htj2k | {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"} <= set(TRANSFER_SYNTAXES)


def test_rejections_in_words() -> None:
    assert rejection_in_words(1, 1, 7) == "called AE title not recognised (permanent)"
    assert rejection_in_words(2, 3, 2) == "local limit exceeded (transient)"
    assert rejection_in_words(1, 1, 1) == "no reason given (permanent)"
