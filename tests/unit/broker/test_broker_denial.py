"""What a denied start leaves behind, in the store and in the service's time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.broker.conftest import Desk

from ostiary.board import Caller
from ostiary.broker.denial import Attempt, DeniedRelease, deny
from ostiary.broker.denial_records import MAX_DENIAL_BYTES, MAX_NEW_OF_SESSION
from ostiary.broker.read_denial import DenialDesk
from ostiary.errors import NotFoundError, RefusedError

SESSION = 'version: "0.3.12"\nname: a\nservices:\n- name: s\n  attestation: {mrenclave: "' + "a" * 64 + '"}\n'


def denied(desk: Desk, *starts: str) -> list[str]:
    """The ids that the programs were told."""

    async def main() -> list[str]:
        ids = []
        for start in starts:
            with pytest.raises(DeniedRelease) as refusal:
                await desk.begin(start)
            ids.append(refusal.value.denial)
        return ids

    return asyncio.run(main())


def kept(desk: Desk, session: str = "a") -> list[Any]:
    return desk.cas.denials.of_session(session)


def test_a_thousand_equal_starts_are_one_denial_and_one_commit(desk: Desk, alice: Caller) -> None:
    desk.upload(SESSION, alice)
    before = desk.cas.store.head.log_size
    ids = denied(desk, *["a/s"] * 1000)
    assert len(set(ids)) == 1
    (document,) = kept(desk)
    assert (document["id"], document["times"]) == (ids[0], 1000)
    desk.cas.denials.close()
    assert desk.cas.store.head.log_size <= before + 2


def test_what_is_over_the_rate_has_an_id_that_leads_nowhere(
    desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    services = "".join(
        f"- name: s{number}\n  attestation: {{mrenclave: '{'a' * 64}'}}\n" for number in range(MAX_NEW_OF_SESSION + 4)
    )
    desk.upload(f'version: "0.3.12"\nname: a\nservices:\n{services}', alice)
    ids = denied(desk, *(f"a/s{number}" for number in range(MAX_NEW_OF_SESSION + 4)))
    found = [denial for denial in ids if desk.cas.denials.find(denial) is not None]
    assert found == ids[:MAX_NEW_OF_SESSION]
    assert all(f"denial {denial}" in caplog.text for denial in ids), "the log has every one"


def test_after_an_update_the_same_refusal_is_another_denial(desk: Desk, alice: Caller) -> None:
    """What it says of the session is of one version."""
    first = desk.upload(SESSION, alice)
    denied(desk, "a/s")
    second = desk.upload(f"{SESSION}predecessor: '{first}'\n", alice)
    denied(desk, "a/s")
    assert [document["session_hash"] for document in kept(desk)] == [second, first]


def test_a_session_whose_security_cannot_be_resolved_says_so_to_its_readers(desk: Desk, alice: Caller) -> None:
    """The program learns no name of a secret."""
    text = SESSION + (
        "security: $$SCONE::x$$\nsecrets:\n- {name: x, kind: config-fragment, import: {session: none, secret: x}}\n"
    )
    desk.upload(text, alice)
    denied(desk, "a/s")
    (document,) = kept(desk)
    assert document["stage"] == "admission"
    assert "$$SCONE::x$$" in " ".join(document["reasons"])
    assert "$$SCONE::x$$" not in desk.denied("a/s")


def test_evidence_that_is_not_there_is_a_denial_without_report(desk: Desk, alice: Caller) -> None:
    desk.upload(SESSION, alice)
    denied(desk, "a/s")
    (document,) = kept(desk)
    assert (document["stage"], document["evidence"], document["report"]) == ("evidence", None, None)
    assert "needs evidence and the program sent none" in document["reasons"][0]


@pytest.mark.parametrize("letter", ["x", "ß", "😀", "\n"])
def test_reasons_of_any_length_are_kept_within_the_bound(desk: Desk, alice: Caller, letter: str) -> None:
    desk.upload(SESSION, alice)
    long = RefusedError(letter * 5000, *[letter * 5000] * 50)

    async def main() -> None:
        await deny(desk.cas, Attempt(session="a", service="s"), long)

    asyncio.run(main())
    (document,) = kept(desk)
    assert len(json.dumps(document, ensure_ascii=False).encode()) <= MAX_DENIAL_BYTES
    assert document["reasons"][0].startswith(letter * 100)


def test_nothing_is_kept_for_a_service_that_is_not_there(desk: Desk, alice: Caller) -> None:
    desk.upload(SESSION, alice)
    with pytest.raises(NotFoundError):
        asyncio.run(desk.begin("a/other"))
    assert kept(desk) == []


@pytest.mark.parametrize("denial", ["", "x" * 16, "0" * 16, "0" * 15])
def test_an_id_that_is_none_is_not_found(desk: Desk, alice: Caller, denial: str) -> None:
    with pytest.raises(NotFoundError, match="Denial not found"):
        asyncio.run(DenialDesk(desk.cas).read(denial, caller=alice))


def test_all_denials_of_a_run_are_signed_by_one_key(desk: Desk, alice: Caller) -> None:
    first = desk.upload(SESSION, alice)
    desk_of_denials = DenialDesk(desk.cas)
    denied(desk, "a/s")
    desk.upload(f"{SESSION}predecessor: '{first}'\n", alice)
    denied(desk, "a/s")
    chains = {
        tuple(asyncio.run(desk_of_denials.read(document["id"], caller=alice))["signature"]["chain"])
        for document in kept(desk)
    }
    assert len(chains) == 1
