"""Bundles: what is written comes back, and nothing else is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.vendors import OF_QUOTE, OF_REPORT, Vendor

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.endorsements import bundle_file
from ostiary.evidence.endorsements.bundle_file import read_bundle, write_bundle


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


def test_a_bundle_comes_back_in_any_order(vendor: Vendor) -> None:
    made = [vendor.endorsement(part) for part in (*OF_QUOTE, *OF_REPORT)]
    written = write_bundle(made)
    assert written == write_bundle(reversed(made))
    assert {piece.part: piece for piece in read_bundle(written)} == {one.part: one.piece for one in made}


def entry(**changed: object) -> dict[str, object]:
    return {"part": "qe-identity/sgx", "data": "", "signature": "", "chain": "", **changed}


@pytest.mark.parametrize(
    ("bundle", "match"),
    [
        ([], "no JSON object with form 1"),
        ({"form": 2, "endorsements": []}, "no JSON object with form 1"),
        ({"form": 1}, "endorsements is not a list"),
        ({"form": 1, "endorsements": ["x"]}, r"bundle, endorsements\[0\]: not an object"),
        ({"form": 1, "endorsements": [entry(), entry(more=1)]}, r"bundle, endorsements\[1\]: not an object"),
        ({"form": 1, "endorsements": [entry(part="x/y")]}, "no endorsement has the name 'x/y'"),
        ({"form": 1, "endorsements": [entry(part=1)]}, "part is missing or no ASCII text"),
        ({"form": 1, "endorsements": [entry(data="é")]}, "data is missing or no ASCII text"),
        ({"form": 1, "endorsements": [entry(data="a")]}, "data is not base64"),
        ({"form": 1, "endorsements": [entry(signature="x")]}, "or signature not hex"),
        ({"form": 1, "endorsements": [entry(chain=None)]}, "chain is missing"),
    ],
)
def test_a_bundle_of_another_form_is_refused(bundle: object, match: str) -> None:
    with pytest.raises(EvidenceFormatError, match=match):
        read_bundle(json.dumps(bundle).encode())


def test_a_bundle_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvidenceFormatError, match="not JSON"):
        read_bundle(b"[" * 100_000)
    monkeypatch.setattr(bundle_file, "MAX_BUNDLE_PIECES", 1)
    with pytest.raises(EvidenceFormatError, match="list of at most 1"):
        read_bundle(json.dumps({"form": 1, "endorsements": [entry(), entry()]}).encode())
    monkeypatch.setattr(bundle_file, "MAX_BUNDLE_FILE_BYTES", 10)
    with pytest.raises(EvidenceFormatError, match="11 bytes, expected at most 10"):
        read_bundle(b" " * 11)


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_undocumented(data: bytes) -> None:
    with pytest.raises(EvidenceFormatError):
        read_bundle(data)
