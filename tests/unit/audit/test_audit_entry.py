from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.audit import Entry, Kind, entry, read_entry
from ostiary.audit.entry import MAX_ENTRY_BYTES, Json
from ostiary.errors import InputError, TooLargeError

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)


def test_an_entry_is_these_bytes() -> None:
    data: dict[str, Json] = {"session": "a/b", "by": None, "names": ("z", "ä"), "security_version": 3, "debug": True}
    assert (
        entry(Kind.SERVICE_ATTESTED, data, NOW, lambda count: b"\xa5" * count)
        == (
            '{"data":{"by":null,"debug":true,"names":["z","ä"],"security_version":3,"session":"a/b"},'
            '"nonce":"a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5","time":"2026-01-02T03:04:05.678Z","type":"service_attested","v":1}'
        ).encode()
    )


def test_the_order_of_members_does_not_matter() -> None:
    one, other = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert entry(Kind.CAS_STARTED, one, NOW, bytes) == entry(Kind.CAS_STARTED, other, NOW, bytes)


def test_the_same_event_at_the_same_moment_is_another_entry() -> None:
    assert entry(Kind.CAS_EXITED, {}, NOW, os.urandom) != entry(Kind.CAS_EXITED, {}, NOW, os.urandom)


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "\x1f", "\x7f", "\u2028", "😀"])
def test_every_text_comes_back_and_stays_in_one_line(text: str) -> None:
    leaf = entry(Kind.SESSION_CREATED, {"session": text}, NOW, os.urandom)
    assert b"\n" not in leaf
    assert json.loads(leaf)["data"]["session"] == text


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_what_was_written_is_read(data: dict[str, Json]) -> None:
    leaf = entry(Kind.SESSION_CREATED, data, NOW, os.urandom)
    assert read_entry(leaf) == Entry(time="2026-01-02T03:04:05.678Z", kind="session_created", data=data)


def test_what_a_later_version_writes_beside_is_read_over() -> None:
    leaf = b'{"data":{"a":[1]},"more":1,"nonce":"","time":"t","type":"new_kind","v":1}'
    assert read_entry(leaf) == Entry(time="t", kind="new_kind", data={"a": [1]})


@pytest.mark.parametrize(
    "leaf",
    [
        b"leaf", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"v":2,"time":"t","type":"k","data":{}}',
        b'{"v":1,"time":1,"type":"k","data":{}}', b'{"v":1,"time":"t","type":"k","data":[]}',
    ],
)  # fmt: skip
def test_what_no_service_wrote_is_refused(leaf: bytes) -> None:
    with pytest.raises(InputError, match="an audit entry"):
        read_entry(leaf)


@given(st.binary())
def test_reading_raises_nothing_else(leaf: bytes) -> None:
    with contextlib.suppress(InputError):
        read_entry(leaf)


def test_the_kinds_are_a_closed_list() -> None:
    assert {kind.value for kind in Kind} == {
        "proposal_closed",
        "proposal_created",
        "proposal_decided",
        "anchor_recorded",
        "service_refused",
        "owner_recorded",
        "rollback_accepted",
        "session_created",
        "session_updated",
        "service_attested",
        "service_file_rendered",
        "service_fspf_tag_updated",
        "volume_fspf_tag_updated",
        "one_time_password_used",
        "endorsements_stored",
        "evidence_kept",
        "cas_started",
        "cas_exited",
    }


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1])
def test_the_largest_exact_integers_are_kept(number: int) -> None:
    assert json.loads(entry(Kind.CAS_EXITED, {"n": number}, NOW, os.urandom))["data"]["n"] == number


def nested(levels: int) -> Json:
    value: Json = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"n": 2**53}, r"data\.n: an integer beyond 2\^53 - 1"),
        ({"n": -(2**53)}, r"data\.n: an integer beyond 2\^53 - 1"),
        ({"n": 1.5}, r"data\.n: a float, expected text, integer"),
        ({"n": b"raw"}, r"data\.n: a bytes, expected text"),
        ({"n": [0, {"deep": float("nan")}]}, r"data\.n\[1\]\.deep: a float"),
        ({"Upper": 1}, "data: a key that is not a lower-case ASCII name"),
        ({"ä": 1}, "data: a key that is not"),
        ({"": 1}, "data: a key that is not"),
        ({1: 1}, "data: a key that is not"),
        ({"n": "\ud800"}, r"data\.n: a lone surrogate at 0"),
        ({"n": nested(7)}, "more than 8 levels deep"),
    ],
)
def test_what_has_no_canonical_form_is_refused(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entry(Kind.SESSION_CREATED, cast("dict[str, Json]", data), NOW, os.urandom)


@pytest.mark.parametrize("now", [NOW.replace(tzinfo=None), NOW.astimezone(timezone(timedelta(hours=1)))])
def test_a_time_must_be_in_utc(now: datetime) -> None:
    with pytest.raises(ValueError, match="expected a time in UTC"):
        entry(Kind.CAS_STARTED, {}, now, os.urandom)


def test_an_entry_is_bounded() -> None:
    with pytest.raises(TooLargeError, match=f"an audit entry session_created of .* bytes, at most {MAX_ENTRY_BYTES}"):
        entry(Kind.SESSION_CREATED, {"session": "x" * MAX_ENTRY_BYTES}, NOW, os.urandom)
