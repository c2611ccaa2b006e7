"""A start decides by what its process knows. Whatever another process over the same database committed before the start
counts all the same: a release is committed on its grounds, and a refusal is told only if its grounds still stand.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.simulators.board import ANN, BEN, boarded, decision
from tests.simulators.sgx_platform import MR_ENCLAVE, NOW
from tests.simulators.signers import Person
from tests.simulators.vendors import OF_REPORT, PCK_CRL, TCB_INFO, VCEK, Vendor
from tests.unit.broker.conftest import Desk

from ostiary.attester.binding import report_data
from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.board.count import Choice
from ostiary.broker import release
from ostiary.broker.cas import Cas
from ostiary.broker.decide import Cast, decide
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.open import make_cas
from ostiary.broker.proposal_records import Change
from ostiary.broker.propose import propose
from ostiary.broker.read_proposal import Query, list_proposals, read_proposal
from ostiary.broker.release import Request, Start, release_configuration
from ostiary.broker.shelf import record_name
from ostiary.broker.upload import upload_session
from ostiary.errors import NotFoundError
from ostiary.evidence.roots import AMD_PRODUCTS
from ostiary.store import Head, Store, open_store

OPEN = "security: {attestation: {mode: none}}\n"
ATTESTED = f"""
version: "0.3.12"
name: a
services: [{{name: s, command: run, attestation: {{mrenclave: ["{MR_ENCLAVE.hex()}"]}}}}]
"""
CLIENT = b"c" * 32


def text(command: str, more: str = OPEN, *, name: str = "a", service: str = "s") -> str:
    admitted = "" if "mode: none" in more else f', attestation: {{mrenclave: ["{MR_ENCLAVE.hex()}"]}}'
    return f'version: "0.3.12"\nname: {name}\n{more}services: [{{name: {service}, command: "{command}"{admitted}}}]\n'


@dataclass
class Replicas:
    """Two processes' services over one database, on the vendor's roots, and the clock."""

    here: Cas
    there: Cas
    vendor: Vendor
    ahead: list[timedelta]

    def upload(self, session: str, author: Caller, predecessor: str = "") -> str:
        """At the other process; the hash."""
        full = f"{session}predecessor: '{predecessor}'\n" if predecessor else session
        return asyncio.run(upload_session(self.there, full.encode(), author)).session_hash.hex()

    def attested(self) -> Start:
        """A start of a/s here, with the vendor's endorsements; raises DeniedRelease."""
        nonce = self.here.challenges.issue(CLIENT, self.here.now())
        bound = report_data(nonce=nonce, client_spki=b"client", server_spki=b"server")
        request = Request(
            session="a",
            service="s",
            client_spki=b"client",
            server_spki=b"server",
            client_key_hash=CLIENT,
            nonce=nonce,
            tee="sgx",
            evidence=self.vendor.platform.quote(report_data=bound),
            endorsements=self.vendor.collateral(),
        )
        return asyncio.run(release_configuration(self.here, request))

    def refused(self) -> str:
        with pytest.raises(DeniedRelease) as denied:
            self.attested()
        return " ".join(denied.value.told.chain)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


def opened(path: Path) -> Store:
    return open_store(path, random=os.urandom, log=Frontier(), warn=lambda _: None)


@pytest.fixture
def replicas(tmp_path: Path, vendor: Vendor) -> Iterator[Replicas]:
    ahead = [timedelta(0)]
    with opened(tmp_path / "data") as first, opened(tmp_path / "data") as second:
        here, there = (
            make_cas(store, roots=vendor.anchors.intel, now=lambda: NOW + ahead[0], random=os.urandom)
            for store in (first, second)
        )
        yield Replicas(here=here, there=there, vendor=vendor, ahead=ahead)


@pytest.fixture
def desk(replicas: Replicas) -> Desk:
    """Starts without evidence, here."""
    return Desk(cas=replicas.here, ahead=replicas.ahead)


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_made_there_starts_here(replicas: Replicas, desk: Desk, alice: Caller) -> None:
    replicas.upload(text("one"), alice)
    assert desk.argv("a/s") == [b"one"]


def test_what_was_changed_there_is_released_here_by_the_next_start(
    replicas: Replicas, desk: Desk, alice: Caller
) -> None:
    first = replicas.upload(text("one"), alice)
    assert desk.argv("a/s") == [b"one"]
    replicas.upload(text("two"), alice, first)
    assert desk.argv("a/s") == [b"two"]


def test_who_was_shut_out_there_is_refused_here_by_the_next_start(
    replicas: Replicas, desk: Desk, alice: Caller
) -> None:
    first = replicas.upload(text("one"), alice)
    desk.start("a/s")
    replicas.upload(text("one", "security: {attestation: {mode: hardware}}\n"), alice, first)
    assert "needs evidence" in desk.denied("a/s")


def test_who_was_let_in_there_is_let_in_here_by_the_next_start(replicas: Replicas, desk: Desk, alice: Caller) -> None:
    """What is known here would refuse it."""
    first = replicas.upload(text("one", "security: {attestation: {mode: hardware}}\n"), alice)
    assert "needs evidence" in desk.denied("a/s")
    replicas.upload(text("one"), alice, first)
    assert desk.argv("a/s") == [b"one"]


def test_a_service_added_there_is_found_here_and_one_removed_is_not(
    replicas: Replicas, desk: Desk, alice: Caller
) -> None:
    first = replicas.upload(text("one"), alice)
    with pytest.raises(NotFoundError):
        desk.start("a/t")
    replicas.upload(text("two", service="t"), alice, first)
    assert desk.argv("a/t") == [b"two"]
    with pytest.raises(NotFoundError):
        desk.start("a/s")


def test_an_access_token_set_or_taken_away_there_counts_here(replicas: Replicas, desk: Desk, alice: Caller) -> None:
    with_token = "security: {service_access_token: secret, attestation: {mode: none}}\n"
    first = replicas.upload(text("one"), alice)
    desk.start("a/s")
    second = replicas.upload(text("one", with_token), alice, first)
    assert "token" in desk.denied("a/s")
    replicas.upload(text("one"), alice, second)
    assert desk.argv("a/s") == [b"one"]


def test_what_admits_by_way_of_another_session_is_changed_there_and_counts_here(
    replicas: Replicas, desk: Desk, alice: Caller
) -> None:
    """What admitted the last start here rests on the session that has the token."""

    def owner(token: str) -> str:
        fragment = f"{{name: t, kind: config-fragment, value: {token}, export: {{session: a}}}}"
        return text("x", f"{OPEN}secrets: [{fragment}]\n", name="b")

    asking = "security: {service_access_token: $$SCONE::t$$, attestation: {mode: none}}\n"
    importing = f"{asking}secrets: [{{name: t, kind: config-fragment, import: {{session: b, secret: t}}}}]\n"
    first = replicas.upload(owner("one"), alice)
    replicas.upload(text("run", importing), alice)
    for _ in range(2):
        asyncio.run(desk.begin("a/s", token="one"))
    replicas.upload(owner("two"), alice, first)
    assert "token" in desk.denied("a/s", token="one")
    replicas.upload(owner("one"), alice, replicas.there.sessions.require("b").parsed.hash.hex())
    asyncio.run(desk.begin("a/s", token="one"))


def test_a_secret_withdrawn_there_is_not_released_here(replicas: Replicas, desk: Desk, alice: Caller) -> None:
    """The configuration that is kept ready rests on the session that exports."""

    def exporting(more: str) -> str:
        return text("x", f"{OPEN}secrets: [{{name: x, kind: ascii, value: pearl{more}}}]\n", name="b")

    importing = f"{OPEN}secrets: [{{name: x, kind: ascii, import: {{session: b, secret: x}}}}]\n"
    first = replicas.upload(exporting(", export: {session: a}"), alice)
    replicas.upload(text("$$SCONE::x$$", importing), alice)
    assert desk.argv("a/s") == [b"pearl"]
    replicas.upload(exporting(""), alice, first)
    desk.denied("a/s")


def test_a_refusal_that_stands_is_decided_once_however_much_else_happened_there(
    replicas: Replicas, desk: Desk, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a change of what it rests on makes a start begin anew: a wrong password is counted once."""
    once = "security: {attestation: {mode: none, one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY}}\n"
    replicas.upload(text("one", once), alice)
    counted: list[str] = []
    monkeypatch.setattr(replicas.here.guesses, "failed", lambda session, _now: counted.append(session))
    desk.denied("a/s@000000")
    replicas.upload(text("other", name="b"), alice)
    desk.denied("a/s@000000")
    assert counted == ["a", "a"]


# --- endorsements ----------------------------------------------------------------------------------------------------


def test_tcb_data_kept_there_counts_here_for_the_next_start(replicas: Replicas, alice: Caller) -> None:
    """Though the choice of endorsements is remembered, and the platform was found good a moment ago."""
    replicas.upload(ATTESTED, alice)
    for _ in range(2):
        replicas.attested()
    outdated = replace(replicas.vendor, number=6, status="OutOfDate").endorsement(TCB_INFO)
    replicas.there.endorsements.shelf.put([outdated], "vendor")
    assert "tcb" in replicas.refused()


def test_a_revocation_kept_there_counts_here_for_the_next_start(replicas: Replicas, alice: Caller) -> None:
    replicas.upload(ATTESTED, alice)
    for _ in range(2):
        replicas.attested()
    revoking = replace(replicas.vendor, number=6, revoked=[replicas.vendor.platform.certificates.platform])
    replicas.there.endorsements.shelf.put([revoking.endorsement(PCK_CRL)], "vendor")
    assert "revoked" in replicas.refused()


def test_a_start_does_not_begin_anew_for_endorsements_of_other_platforms(
    replicas: Replicas, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or nothing would start while many new platforms do, each of which stores its own."""
    replicas.upload(ATTESTED, alice)
    for _ in range(2):
        replicas.attested()
    monkeypatch.setattr(release, "MAX_TRIES", 1)
    replicas.there.endorsements.shelf.put([replicas.vendor.endorsement(VCEK)], "vendor")
    assert replicas.attested().software_identity == MR_ENCLAVE
    replicas.there.endorsements.shelf.put([replace(replicas.vendor, number=6).endorsement(TCB_INFO)], "vendor")
    assert "changes faster" in replicas.refused()


def test_the_list_of_every_product_is_a_ground_of_a_report_that_may_be_of_any(replicas: Replicas) -> None:
    report = replicas.vendor.chip.report()
    names = {ground.name for ground in replicas.here.endorsements.grounds("snp", report)}
    assert {record_name(part) for part in OF_REPORT} <= names
    assert {f"endorsement/amd-crl/{product}" for product in AMD_PRODUCTS} <= names


def test_newer_endorsements_kept_there_admit_here_what_the_older_ones_refused(
    replicas: Replicas, alice: Caller
) -> None:
    replicas.upload(ATTESTED, alice)
    outdated = replace(replicas.vendor, number=6, status="OutOfDate").endorsement(TCB_INFO)
    replicas.here.endorsements.shelf.put([outdated], "vendor")
    assert "tcb" in replicas.refused()
    replicas.there.endorsements.shelf.put([replace(replicas.vendor, number=7).endorsement(TCB_INFO)], "vendor")
    assert replicas.attested().software_identity == MR_ENCLAVE


def test_a_choice_that_was_remembered_ends_with_the_endorsements(replicas: Replicas, alice: Caller) -> None:
    replicas.upload(ATTESTED, alice)
    for _ in range(2):
        replicas.attested()
    replicas.ahead[0] = timedelta(days=20)
    assert "run out" in replicas.refused()


# --- proposals -------------------------------------------------------------------------------------------------------


def test_who_may_read_there_may_see_proposals_here_and_nobody_else(
    replicas: Replicas, alice: Caller, eve: Caller
) -> None:
    """Who reads a session is kept here; a list asks whether that still stands."""

    def listed() -> int:
        found = list_proposals(replicas.here, Query(), caller=eve, after=None, wait_seconds=0)
        return len(asyncio.run(found).shown)

    first = replicas.upload("version: '0.3.12'\nname: b\naccess_policy: {read: ANY}\n", alice)
    asyncio.run(
        propose(replicas.here, boarded("b", predecessor=first).encode(), note="", break_glass=False, caller=alice)
    )
    assert [listed(), listed()] == [1, 1]
    replicas.upload("version: '0.3.12'\nname: b\naccess_policy: {read: CREATOR}\n", alice, first)
    assert listed() == 0


def test_what_is_over_by_a_version_made_there_is_not_listed_here(replicas: Replicas, alice: Caller) -> None:
    """For who needs not be asked whether he may read the session, too; which version is current is kept here."""

    def listed() -> int:
        found = list_proposals(replicas.here, Query(), caller=alice, after=None, wait_seconds=0)
        return len(asyncio.run(found).shown)

    first = replicas.upload("version: '0.3.12'\nname: b\naccess_policy: {read: NONE, update: CREATOR}\n", alice)
    text = boarded("b", predecessor=first).encode()
    asyncio.run(propose(replicas.here, text, note="", break_glass=False, caller=alice))
    assert [listed(), listed()] == [1, 1]
    replicas.upload("version: '0.3.12'\nname: b\naccess_policy: {read: ANY}\n", alice, first)
    assert listed() == 0


def decided(cas: Cas, person: Person, proposal: str, choice: str = "approve") -> str:
    """A member's decision at one of the services; the state that it led to."""
    shown = asyncio.run(read_proposal(cas, proposal, caller=None))
    body = decision(person, shown, choice)
    cast = Cast(
        signer=person.spki,
        choice=Choice(choice),
        reason=body["reason"],
        signature=base64.b64decode(body["signature"]),
    )
    return asyncio.run(decide(cas, proposal, cast)).state.value


@pytest.fixture
def waiting(replicas: Replicas, alice: Caller) -> str:
    """A proposal made here, of a session that anybody may read."""
    first = replicas.upload("version: '0.3.12'\nname: b\naccess_policy: {read: ANY}\n", alice)
    made = propose(replicas.here, boarded("b", predecessor=first).encode(), note="", break_glass=False, caller=alice)
    return asyncio.run(made).proposal.id


def test_what_a_service_keeps_of_its_own_writes_is_what_another_reads(replicas: Replicas, waiting: str) -> None:
    here, there = replicas.here.proposals, replicas.there.proposals
    for choice in (None, "approve", "withdraw"):
        if choice is not None:
            assert decided(replicas.here, ANN, waiting, choice) == "open"
        assert here.require(waiting) == there.require(waiting)
        assert here.pending() == there.pending()


def test_what_a_service_keeps_of_its_own_writes_is_not_taken_for_newer_ones(
    replicas: Replicas, waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a commit and the turn of whoever made it another process may have changed the proposal again."""
    proposals = replicas.here.proposals
    keep = proposals.stored

    def later(change: Change, head: Head) -> None:
        monkeypatch.undo()
        with ThreadPoolExecutor(1) as beside:
            assert beside.submit(decided, replicas.there, ANN, waiting, "withdraw").result() == "open"
        replicas.here.store.look()
        keep(change, head)

    monkeypatch.setattr(proposals, "stored", later)
    assert decided(replicas.here, ANN, waiting) == "open"
    for records in (proposals, replicas.there.proposals):
        assert set(records.require(waiting).choices.values()) == {Choice.WITHDRAW}
    assert decided(replicas.here, BEN, waiting) == "open", "a withdrawn approval counts for nobody"


def test_members_decide_at_different_services(replicas: Replicas, waiting: str) -> None:
    assert decided(replicas.there, ANN, waiting) == "open"
    assert decided(replicas.here, BEN, waiting) == "applied"
    for cas in (replicas.here, replicas.there):
        assert cas.proposals.pending() == ()
        assert cas.proposals.require(waiting).state.value == "applied"
        assert cas.sessions.require("b").parsed.session.policy_board is not None
