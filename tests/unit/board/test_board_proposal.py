"""What a proposal's id is the hash of."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tests.simulators.board_members import FACTS

from ostiary.board import MAX_NOTE_CHARS, ProposalFacts
from ostiary.errors import InputError, TooLargeError

TEXT = """ostiary-proposal-v1
cas 6363636363636363636363636363636363636363636363636363636363636363
session shop/web
predecessor 7070707070707070707070707070707070707070707070707070707070707070
session-hash 6868686868686868686868686868686868686868686868686868686868686868
break-glass no
created 2026-11-23T12:00:00Z
nonce 6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e
note ""
"""


def test_the_id_is_the_hash_of_a_text_that_anybody_can_write() -> None:
    assert FACTS.text() == TEXT.encode()
    assert FACTS.proposal_hash() == hashlib.sha256(TEXT.encode()).digest()


def test_a_first_version_and_breaking_the_glass_are_said() -> None:
    text = replace(FACTS, predecessor=None, break_glass=True, session="/").text()
    assert b"\nsession /\npredecessor none\n" in text
    assert b"\nbreak-glass yes\n" in text


@pytest.mark.parametrize(("note", "written"), [
    ("why not", r'"why not"'),
    ('"\\/', r'"\"\\/"'),
    ("\b\t\n\f\r", r'"\b\t\n\f\r"'),
    ("\x00\x1f\x7f", r'"\u0000\u001f\u007f"'),
    ("é\u202e\u2028", r'"\u00e9\u202e\u2028"'),
    ("😀", r'"\ud83d\ude00"'),
])  # fmt: skip
def test_a_note_is_one_line_of_ascii(note: str, written: str) -> None:
    assert replace(FACTS, note=note).text().endswith(f"\nnote {written}\n".encode("ascii"))


@pytest.mark.parametrize("change", [
    {"cas": b"d" * 32}, {"session": "shop/web2"}, {"predecessor": None}, {"predecessor": b"q" * 32},
    {"session_hash": b"i" * 32}, {"break_glass": True}, {"created": FACTS.created + timedelta(seconds=1)},
    {"note": " "}, {"nonce": b"m" * 16},
])  # fmt: skip
def test_every_fact_changes_the_id(change: dict[str, object]) -> None:
    assert replace(FACTS, **change).proposal_hash() != FACTS.proposal_hash()  # type: ignore[arg-type]


@pytest.mark.parametrize(("change", "expected"), [
    ({"cas": b"c" * 31}, "the cas of a proposal has 31 bytes, expected 32"),
    ({"predecessor": b""}, "the predecessor of a proposal has 0 bytes, expected 32"),
    ({"session_hash": b"h" * 33}, "the session hash of a proposal has 33 bytes, expected 32"),
    ({"nonce": b"n" * 15}, "the nonce of a proposal has 15 bytes, expected 16"),
    ({"session": "a\npredecessor none"}, r"names the session 'a\\npredecessor none', which is no name"),
    ({"session": "shop/w\u0435b"}, "which is no name of a session"),
    ({"session": ""}, "which is no name of a session"),
    ({"session": "a" * 513}, "which is no name of a session"),
    ({"created": FACTS.created.replace(tzinfo=None)}, "expected UTC and whole seconds"),
    ({"created": datetime(2026, 1, 1, microsecond=1, tzinfo=UTC)}, "expected UTC and whole seconds"),
    ({"created": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "expected UTC and whole seconds"),
    ({"note": "\ud800"}, "half a surrogate pair"),
])  # fmt: skip
def test_facts_that_no_proposal_can_have_are_refused(change: dict[str, object], expected: str) -> None:
    """U+0435 of the second name is Cyrillic and looks like an e."""
    with pytest.raises(InputError, match=expected):
        replace(FACTS, **change)  # type: ignore[arg-type]


def test_a_note_has_a_bound() -> None:
    assert replace(FACTS, note="é" * MAX_NOTE_CHARS).note
    with pytest.raises(TooLargeError, match="the note has 1001 characters, at most 1000 are allowed"):
        replace(FACTS, note="é" * (MAX_NOTE_CHARS + 1))


def test_a_time_zone_of_no_offset_is_utc() -> None:
    greenwich = timezone(timedelta(0), "Greenwich")
    assert ProposalFacts.text(replace(FACTS, created=FACTS.created.astimezone(greenwich))) == FACTS.text()
