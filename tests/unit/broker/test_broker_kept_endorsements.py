"""Starts do not wait for vendors; vendors are asked ahead of time, once at a time, and left alone when they fail."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from tests.simulators.outside import TIMEOUT_SECONDS
from tests.simulators.sgx_platform import NOW
from tests.simulators.vendors import (
    AMD_CHAIN,
    DAY,
    OF_QUOTE,
    OF_REPORT,
    PCK_CRL,
    TCB_INFO,
    VCEK,
    Vendor,
    VendorServer,
    hanging,
    said,
)

from ostiary.audit import Frontier
from ostiary.broker import kept_endorsements as module
from ostiary.broker.background import background
from ostiary.broker.backoff import FIRST_WAIT, MOST_WAIT
from ostiary.broker.kept_endorsements import CERTIFICATE_AHEAD, Endorsements, is_due, read_bundle_file
from ostiary.broker.open import make_cas
from ostiary.broker.outside import Outside
from ostiary.broker.shelf import Shelf
from ostiary.broker.vendors import Vendors
from ostiary.errors import ConfigurationError, EndorsementsMissingError, EvidenceRefusedError, StoreError
from ostiary.evidence.endorsements.bundle_file import write_bundle
from ostiary.evidence.endorsements.choice import Chosen
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.sgx.verify import verify
from ostiary.secret.azure import PUBLIC_CLOUD
from ostiary.store import Store, open_store

_Thing = TypeVar("_Thing")


@dataclass
class House:
    """A service's endorsements, the vendor's server, and the clock."""

    server: VendorServer
    store: Store
    now: datetime = NOW
    jitter: bytes = bytes(2)
    made: list[Endorsements] = field(default_factory=list)
    outsides: list[Outside] = field(default_factory=list)

    def open(self, *, online: bool = True, bundle: Path | None = None) -> Endorsements:
        anchors = self.server.vendor.anchors
        self.outsides.append(Outside(PUBLIC_CLOUD, now=lambda: self.now, random=os.urandom))
        return Endorsements(
            Shelf(self.store, anchors, now=lambda: self.now, random=os.urandom),
            anchors,
            self.outsides[-1],
            now=lambda: self.now,
            random=lambda count: self.jitter[:count],
            vendors=Vendors(self.server.sources, anchors, now=lambda: self.now) if online else None,
            bundle=bundle,
        )

    @property
    def vendor(self) -> Vendor:
        return self.server.vendor

    @vendor.setter
    def vendor(self, vendor: Vendor) -> None:
        self.server.vendor = vendor

    def number(self, endorsements: Endorsements) -> int:
        kept = endorsements.shelf.held(TCB_INFO)
        assert kept is not None
        return kept.endorsement.number


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def house(tmp_path: Path, vendor: Vendor) -> Iterator[House]:
    server = VendorServer(tmp_path, replace(vendor))
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        made = House(server, store)
        yield made
        for outside in made.outsides:
            outside.close()
    server.server.close()


def run(work: Callable[[], Awaitable[_Thing]]) -> _Thing:
    async def main() -> _Thing:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await work()

    return asyncio.run(main())


def choose(house: House, endorsements: Endorsements, sent: bytes = b"", *, tee: str = "sgx") -> Chosen:
    evidence = house.vendor.platform.quote() if tee == "sgx" else house.vendor.chip.report()
    return run(lambda: endorsements.choose(tee, evidence, sent))


# --- a start ---------------------------------------------------------------------------------------------------------


def test_a_start_without_endorsements_waits_for_the_vendor_once(house: House) -> None:
    endorsements = house.open()
    chosen = choose(house, endorsements)
    assert verify(house.vendor.platform.quote(), chosen.endorsements, roots=house.vendor.anchors.intel, now=NOW)
    assert sorted(house.server.asked_parts()) == sorted(OF_QUOTE)
    choose(house, endorsements)
    assert len(house.server.asked) == len(OF_QUOTE)


def test_a_report_alone_is_verified_by_what_amd_has(house: House) -> None:
    assert choose(house, house.open(), tee="snp").endorsements
    assert sorted(house.server.asked_parts()) == sorted(OF_REPORT)
    assert house.server.asked_parts().index(AMD_CHAIN) < house.server.asked_parts().index(VCEK)


def test_a_start_does_not_wait_while_the_vendor_hangs(house: House) -> None:
    """Neither one that brings its endorsements, nor one for which copies are kept."""
    endorsements = house.open()
    choose(house, endorsements)
    house.now += timedelta(days=2)
    begun, go_on = threading.Event(), threading.Event()
    house.server.in_place_of = dict.fromkeys(OF_QUOTE, hanging(go_on, begun))

    async def story() -> None:
        refresh = asyncio.create_task(endorsements.refresh())
        assert await asyncio.to_thread(begun.wait, TIMEOUT_SECONDS)
        quote = house.vendor.platform.quote()
        for sent in (b"", house.vendor.collateral()):
            assert (await endorsements.choose("sgx", quote, sent)).endorsements
        assert not refresh.done()
        go_on.set()
        await refresh

    run(story)


def test_without_vendors_a_start_is_refused_at_once(house: House) -> None:
    with pytest.raises(EndorsementsMissingError, match="the platform sent no endorsements"):
        choose(house, house.open(online=False))
    assert house.server.asked == []


def test_many_starts_ask_once(house: House) -> None:
    endorsements, quote = house.open(), house.vendor.platform.quote()

    async def story() -> None:
        await asyncio.gather(*(endorsements.choose("sgx", quote, b"") for _ in range(20)))

    run(story)
    assert len(house.server.asked) == len(OF_QUOTE)


def test_a_start_waits_no_longer_than_its_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.2)
    go_on = threading.Event()
    house.server.in_place_of[TCB_INFO] = hanging(go_on)
    endorsements, quote = house.open(), house.vendor.platform.quote()

    async def story() -> None:
        with pytest.raises(EndorsementsMissingError):
            await endorsements.choose("sgx", quote, b"")
        go_on.set()

    run(story)


def test_inventing_chips_asks_the_vendor_so_often_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NEW_A_MINUTE", 4)
    endorsements = house.open()

    async def story() -> None:
        for index in range(1, 9):
            report = house.vendor.chip.report({0x1A0: bytes([index]) * 64})
            with pytest.raises(EndorsementsMissingError):
                await endorsements.choose("snp", report, b"")

    run(story)
    assert len(house.server.asked) == 4
    house.now += timedelta(minutes=1)
    run(story)
    assert len(house.server.asked) == 8


# --- what attesters bring --------------------------------------------------------------------------------------------


def test_what_an_admitted_attester_sent_helps_others_after_a_restart(house: House) -> None:
    endorsements = house.open(online=False)

    async def story() -> None:
        quote = house.vendor.platform.quote()
        chosen = await endorsements.choose("sgx", quote, house.vendor.collateral())
        endorsements.accept(chosen)
        endorsements.accept(chosen)
        await asyncio.gather(*endorsements._storing)
        endorsements.accept(await endorsements.choose("sgx", quote, house.vendor.collateral()))
        assert not endorsements._storing

    run(story)
    assert choose(house, house.open(online=False)).endorsements


def test_a_disk_that_fails_refuses_no_start(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    endorsements = house.open(online=False)

    def fail(*_arguments: object) -> None:
        raise StoreError("full")

    monkeypatch.setattr(endorsements.shelf, "put", fail)

    async def story() -> None:
        chosen = await endorsements.choose("sgx", house.vendor.platform.quote(), house.vendor.collateral())
        endorsements.accept(chosen)
        await asyncio.gather(*endorsements._storing)

    run(story)
    assert "could not be stored" in caplog.text


def test_what_starts_use_is_asked_for_in_the_background(house: House) -> None:
    """So that a newer copy of the vendor counts from the next start on."""
    endorsements = house.open()
    choose(house, endorsements, house.vendor.collateral())
    assert house.server.asked == []
    run(endorsements.refresh)
    assert sorted(house.server.asked_parts()) == sorted(OF_QUOTE)


# --- ahead of time ---------------------------------------------------------------------------------------------------


def test_statements_are_asked_for_every_day_and_replaced_by_newer_ones(house: House) -> None:
    endorsements = house.open()
    choose(house, endorsements)
    house.server.asked.clear()
    house.now += timedelta(hours=20)
    run(endorsements.refresh)
    assert house.server.asked == []
    house.now += timedelta(hours=5)
    house.vendor = replace(house.vendor, number=6, issued=house.now - timedelta(minutes=1))
    run(endorsements.refresh)
    assert house.number(endorsements) == 6
    house.server.asked.clear()
    run(endorsements.refresh)
    assert house.server.asked == []


def test_an_older_answer_replaces_nothing_and_is_not_asked_for_again_at_once(house: House) -> None:
    endorsements = house.open()
    choose(house, endorsements)
    house.now += 2 * DAY
    house.vendor = replace(house.vendor, number=4, issued=house.now - timedelta(minutes=1))
    run(endorsements.refresh)
    assert house.number(endorsements) == 5
    asked = len(house.server.asked)
    run(endorsements.refresh)
    assert len(house.server.asked) == asked


def test_an_attesters_copy_is_replaced_by_the_vendors(house: House) -> None:
    endorsements = house.open()
    early = replace(house.vendor, number=9)
    endorsements.shelf.put([early.endorsement(part) for part in OF_QUOTE], "attester")
    run(endorsements.refresh)
    assert house.number(endorsements) == 5


def test_when_a_copy_is_due(vendor: Vendor) -> None:
    made, certificate = vendor.endorsement(TCB_INFO), vendor.endorsement(VCEK)
    long_ago = NOW - 1000 * DAY
    assert not is_due(made, long_ago, made.issued + timedelta(hours=23))
    assert is_due(made, long_ago, made.issued + DAY)
    assert not is_due(made, made.issued + DAY, made.issued + 2 * DAY - timedelta(seconds=1))
    last_third = made.until - vendor.life / 3
    assert is_due(made, last_third - timedelta(hours=1), last_third)
    assert not is_due(made, last_third - timedelta(minutes=59), last_third)
    assert not is_due(certificate, long_ago, certificate.until - CERTIFICATE_AHEAD - timedelta(seconds=1))
    assert is_due(certificate, long_ago, certificate.until - CERTIFICATE_AHEAD)
    assert not is_due(certificate, certificate.until - 2 * DAY, certificate.until - DAY - timedelta(seconds=1))


# --- vendors that fail -----------------------------------------------------------------------------------------------


def test_after_429_a_server_is_left_alone_as_long_as_it_says(house: House) -> None:
    endorsements = house.open()
    house.server.in_place_of = {part: said(429, b"", {"Retry-After": "600"}) for part in OF_QUOTE}
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    asked = len(house.server.asked)
    assert asked >= 1
    house.server.in_place_of = {}
    house.now += timedelta(seconds=599)
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    run(endorsements.refresh)
    assert len(house.server.asked) == asked
    house.now += timedelta(hours=2)
    assert choose(house, endorsements).endorsements


def test_a_part_that_fails_is_left_alone_and_the_others_are_not(house: House) -> None:
    endorsements = house.open()
    house.server.in_place_of[TCB_INFO] = said(500)
    with pytest.raises(EndorsementsMissingError) as missing:
        choose(house, endorsements)
    assert missing.value.parts == (str(TCB_INFO),)
    assert endorsements.shelf.held(PCK_CRL) is not None
    asked = len(house.server.asked)
    for _ in range(3):
        with pytest.raises(EndorsementsMissingError):
            choose(house, endorsements)
    assert len(house.server.asked) == asked
    house.now += FIRST_WAIT
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    assert len(house.server.asked) == asked + 1
    house.now += FIRST_WAIT
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    assert len(house.server.asked) == asked + 1, "the second wait is twice as long"
    del house.server.in_place_of[TCB_INFO]
    house.now += FIRST_WAIT
    assert choose(house, endorsements).endorsements


def test_jitter_makes_waits_longer(house: House) -> None:
    house.jitter = b"\xff\xff"
    endorsements = house.open()
    house.server.in_place_of[TCB_INFO] = said(404)
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    asked = len(house.server.asked)
    house.now += FIRST_WAIT * 1.4
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    assert len(house.server.asked) == asked


@pytest.mark.parametrize(
    "wrong",
    [
        said(200, b"garbage"),
        said(200, b"{}", {"TCB-Info-Issuer-Chain": "x"}),
        said(200, b"x" * 1000)[:-10],
    ],
)
def test_wrong_answers_are_not_kept(house: House, wrong: bytes, caplog: pytest.LogCaptureFixture) -> None:
    endorsements = house.open()
    house.server.in_place_of[TCB_INFO] = wrong
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    assert endorsements.shelf.held(TCB_INFO) is None
    assert str(TCB_INFO) in caplog.text


def test_what_the_vendor_has_no_more_is_used_as_long_as_it_may(house: House) -> None:
    endorsements = house.open()
    choose(house, endorsements)
    house.server.in_place_of = dict.fromkeys(OF_QUOTE, said(500))
    house.now += 19 * DAY
    run(endorsements.refresh)
    assert choose(house, endorsements).at == house.now
    house.now += 2 * DAY
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    quote = house.vendor.platform.quote()
    stale = run(lambda: endorsements.choose("sgx", quote, b"", max_age=25 * DAY))
    assert stale.at < house.now


def test_a_chip_whose_issuers_cannot_be_had_is_not_asked_for(house: House) -> None:
    house.server.in_place_of[AMD_CHAIN] = said(500)
    with pytest.raises(EndorsementsMissingError):
        choose(house, house.open(), tee="snp")
    assert VCEK not in house.server.asked_parts()


def test_failures_are_forgotten_beyond_a_bound(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BACKOFFS", 1)
    endorsements = house.open()
    endorsements._note_failure("a", None)
    endorsements._note_failure("b", None)
    assert list(endorsements._failed) == ["b"]
    for _ in range(30):
        house.now += 2 * MOST_WAIT
        endorsements._note_failure("b", None)
    assert endorsements._failed["b"].until - house.now == MOST_WAIT


def test_what_fails_at_one_time_counts_as_one_failure(house: House) -> None:
    endorsements = house.open()
    for _ in range(4):
        endorsements._note_failure("server", None)
    assert endorsements._failed["server"].until - house.now == FIRST_WAIT


def test_no_later_failure_shortens_what_a_server_asked_for(house: House) -> None:
    endorsements = house.open()
    endorsements._note_failure("server", timedelta(hours=5))
    endorsements._note_failure("server", None)
    assert endorsements._failed["server"].until - house.now == timedelta(hours=5)


def test_a_vendor_without_better_is_asked_again_after_a_while(house: House) -> None:
    """What it has may have run out, when an attester brought newer."""
    endorsements = house.open()
    endorsements.shelf.put([house.vendor.endorsement(part) for part in OF_QUOTE], "attester")
    house.vendor = replace(house.vendor, issued=NOW - 30 * DAY)
    for _ in range(2):
        run(endorsements.refresh)
    assert len(house.server.asked) == len(OF_QUOTE)
    assert house.number(endorsements) == 5
    assert choose(house, endorsements).endorsements


def test_so_many_parts_are_asked_for_at_one_time_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNNING", 1)
    endorsements = house.open()
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    assert len(house.server.asked) == 1


def test_a_service_that_ends_asks_nobody(house: House, caplog: pytest.LogCaptureFixture) -> None:
    endorsements = house.open()
    house.outsides[-1].close()
    with pytest.raises(EndorsementsMissingError):
        choose(house, endorsements)
    assert "the service is ending" in caplog.text


# --- the owner's bundle ----------------------------------------------------------------------------------------------


def bundle_of(vendor: Vendor, path: Path, parts: tuple[Part, ...] = OF_QUOTE) -> Path:
    path.write_bytes(write_bundle([vendor.endorsement(part) for part in parts]))
    return path


def test_a_bundle_is_read_at_the_start_and_when_it_changes(house: House, tmp_path: Path) -> None:
    path = bundle_of(house.vendor, tmp_path / "bundle.json")
    endorsements = house.open(online=False, bundle=path)
    run(endorsements.refresh)
    assert house.number(endorsements) == 5
    seq = house.store.head.seq
    run(endorsements.refresh)
    assert house.store.head.seq == seq
    bundle_of(replace(house.vendor, number=16), path)
    run(endorsements.refresh)
    assert house.number(endorsements) == 16
    assert house.server.asked == []


def test_a_bundle_that_is_gone_or_forged_changes_nothing(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bundle.json"
    endorsements = house.open(online=False, bundle=path)
    run(endorsements.refresh)
    assert "No such file" in caplog.text
    bundle_of(Vendor(), path)
    run(endorsements.refresh)
    assert "root that this service does not trust" in caplog.text
    assert endorsements.shelf.parts() == ()


def test_nothing_of_a_bundle_is_stored_if_a_part_of_it_is_forged(house: House, tmp_path: Path) -> None:
    mixed = [house.vendor.endorsement(PCK_CRL), Vendor().endorsement(TCB_INFO)]
    (tmp_path / "b").write_bytes(write_bundle(mixed))
    with pytest.raises(EvidenceRefusedError):
        module.import_bundle(house.open().shelf, house.vendor.anchors, tmp_path / "b", now=NOW)
    assert house.open().shelf.parts() == ()
    with pytest.raises(ConfigurationError, match="No such file"):
        read_bundle_file(tmp_path / "none", house.vendor.anchors, now=NOW)


# --- the background --------------------------------------------------------------------------------------------------


def test_the_background_looks_after_everything_and_ends_with_the_service(tmp_path: Path, vendor: Vendor) -> None:
    path = bundle_of(vendor, tmp_path / "bundle.json")
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        cas = make_cas(
            store, roots=vendor.anchors.intel + vendor.anchors.amd, now=lambda: NOW, random=os.urandom, bundle=path
        )

        async def story() -> None:
            async with background(cas):
                while len(cas.endorsements.shelf.parts()) < len(OF_QUOTE):
                    await asyncio.sleep(0.01)

        run(story)
        cas.outside.close()


def test_a_refresh_that_fails_is_not_the_last(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", timedelta(0))
    endorsements, calls = house.open(), [0]
    again = asyncio.Event()

    async def refresh() -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise RuntimeError("once")
        again.set()

    monkeypatch.setattr(endorsements, "refresh", refresh)

    async def story() -> None:
        task = asyncio.create_task(endorsements.run())
        await again.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(story)
    assert "endorsements could not be looked after" in caplog.text
