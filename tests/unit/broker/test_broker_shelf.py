"""What is kept is only ever replaced by better, survives a restart, and is verified again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from tests.simulators.sgx_platform import NOW
from tests.simulators.vendors import DAY, OF_QUOTE, OF_REPORT, PCK_CRL, ROOT_CRL, TCB_INFO, VCEK, Vendor

from ostiary.audit import Frontier
from ostiary.broker import shelf as shelves
from ostiary.broker.shelf import INDEX, Shelf, record_name
from ostiary.errors import StoreError
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, Origin
from ostiary.store import Store, Write, open_store


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as made:
        yield made


def open_shelf(store: Store, vendor: Vendor) -> Shelf:
    return Shelf(store, vendor.anchors, now=lambda: NOW, random=os.urandom)


def number(shelf: Shelf) -> int:
    kept = shelf.held(TCB_INFO)
    assert kept is not None
    return kept.endorsement.number


def test_everything_is_there_after_a_restart(tmp_path: Path, vendor: Vendor) -> None:
    parts = (*OF_QUOTE, *OF_REPORT)
    for first in (True, False):
        with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
            shelf = open_shelf(store, vendor)
            if first:
                assert shelf.parts() == ()
                assert set(shelf.put([vendor.endorsement(part) for part in parts], "vendor")) == set(parts)
            assert set(shelf.parts()) == set(parts)
            for part in parts:
                kept = shelf.held(part)
                assert kept is not None
                assert (kept.origin, kept.endorsement.piece.part) == ("vendor", part)


def test_an_older_number_or_day_takes_nobodys_place(store: Store, vendor: Vendor) -> None:
    shelf = open_shelf(store, vendor)
    shelf.put([vendor.endorsement(TCB_INFO), vendor.endorsement(PCK_CRL)], "vendor")
    before = store.head.seq
    older = [
        replace(vendor, number=4).endorsement(TCB_INFO),
        replace(vendor, issued=vendor.issued - DAY).endorsement(TCB_INFO),
        replace(vendor, number=4).endorsement(PCK_CRL),
        vendor.endorsement(TCB_INFO),
    ]
    assert shelf.put(older, "vendor") == ()
    assert (number(shelf), store.head.seq) == (5, before), "nothing was written"


def test_one_that_has_run_out_takes_the_place_of_none_in_force(store: Store, vendor: Vendor) -> None:
    """A mirror may still have early data of last year, with a number that is higher than today's."""
    shelf = open_shelf(store, vendor)
    ended = replace(vendor, number=9, issued=NOW - 30 * DAY).endorsement(TCB_INFO)
    assert shelf.put([vendor.endorsement(TCB_INFO)], "vendor") == (TCB_INFO,)
    assert shelf.put([ended], "vendor") == ()
    assert number(shelf) == 5


def test_a_newer_one_does(store: Store, vendor: Vendor) -> None:
    shelf = open_shelf(store, vendor)
    shelf.put([vendor.endorsement(TCB_INFO)], "vendor")
    assert shelf.put([replace(vendor, number=6).endorsement(TCB_INFO)], "vendor") == (TCB_INFO,)
    assert number(shelf) == 6


def test_an_attester_takes_no_place_of_the_vendor_and_leaves_it_to_the_vendor(store: Store, vendor: Vendor) -> None:
    """Early data that an attester brings counts for nobody who has the vendor's."""
    shelf = open_shelf(store, vendor)
    early = replace(vendor, number=9).endorsement(TCB_INFO)
    assert shelf.put([early], "attester") == (TCB_INFO,)
    assert shelf.put([vendor.endorsement(TCB_INFO)], "vendor") == (TCB_INFO,)
    assert shelf.put([early], "attester") == ()
    assert number(shelf) == 5


def test_software_endorsements_are_not_kept(store: Store, vendor: Vendor) -> None:
    software = Anchors(intel=(vendor.platform.software_root,), amd=())
    shelf = Shelf(store, software, now=lambda: NOW, random=os.urandom)
    made = replace(vendor.endorsement(TCB_INFO), root=vendor.platform.software_root)
    assert shelf.put([made], "attester") == ()


def test_what_does_not_verify_any_more_is_not_there_and_can_be_replaced(
    store: Store, vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as under other roots."""
    open_shelf(store, vendor).put([vendor.endorsement(TCB_INFO)], "vendor")
    other = Vendor()
    shelf = open_shelf(store, other)
    assert shelf.held(TCB_INFO) is None
    assert shelf.held(TCB_INFO) is None
    assert [record for record in caplog.text.splitlines() if "cannot be used" in record][1:] == []
    assert shelf.put([replace(other, number=1).endorsement(TCB_INFO)], "attester") == (TCB_INFO,)
    assert number(shelf) == 1


def test_a_record_that_is_gone_or_garbage_is_not_there(store: Store, vendor: Vendor) -> None:
    open_shelf(store, vendor).put([vendor.endorsement(TCB_INFO), vendor.endorsement(ROOT_CRL)], "vendor")
    writes = [
        Write(name=record_name(TCB_INFO), value=None, expected_version=store.version(record_name(TCB_INFO)) or 0),
        Write(name=record_name(ROOT_CRL), value=b"{}", expected_version=store.version(record_name(ROOT_CRL)) or 0),
    ]
    store.commit(writes, b"{}").result()
    shelf = open_shelf(store, vendor)
    assert (shelf.held(TCB_INFO), shelf.held(ROOT_CRL)) == (None, None)


def test_an_index_of_a_later_version_is_refused(store: Store, vendor: Vendor) -> None:
    store.commit([Write(name=INDEX, value=json.dumps({"form": 2}).encode(), expected_version=0)], b"{}").result()
    with pytest.raises(StoreError, match="has form 2, expected 1: a newer Ostiary wrote it"):
        open_shelf(store, vendor)


def many(vendor: Vendor, count: int) -> list[Endorsement]:
    """Like TCB info of as many kinds of platforms; only the names differ."""
    made = vendor.endorsement(TCB_INFO)
    parts = [replace(TCB_INFO, name=f"sgx/{index:012x}") for index in range(count)]
    return [replace(made, piece=replace(made.piece, part=part)) for part in parts]


def test_beyond_its_room_attesters_go_first(store: Store, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "MAX_KEPT", 3)
    monkeypatch.setattr(shelves, "MAX_AT_ONCE", 2)
    monkeypatch.setattr(shelves, "MAX_IN_MEMORY", 2)
    shelf = open_shelf(store, vendor)
    endorsements = many(vendor, 6)
    shelf.put(endorsements[:1], "vendor")
    shelf.put(endorsements[1:3], "attester")
    assert shelf.put(endorsements[3:4], "vendor") == (endorsements[3].part,)
    assert shelf.parts() == tuple(endorsements[index].part for index in (0, 2, 3))
    shelf.put(endorsements[4:6], "vendor")
    assert shelf.parts() == tuple(endorsements[index].part for index in (3, 4, 5))
    assert shelf.put(endorsements[:1], "attester") == (), "no attester drives out a vendor's"
    assert store.version(record_name(endorsements[0].part)) is None, "the record is gone with it"


def test_the_audit_log_has_what_was_stored(store: Store, vendor: Vendor) -> None:
    before = store.head.log_size
    open_shelf(store, vendor).put([vendor.endorsement(VCEK), vendor.endorsement(TCB_INFO)], "vendor")
    assert store.head.log_size == before + 1


def test_days_matter_only_within_a_number(store: Store, vendor: Vendor) -> None:
    shelf = open_shelf(store, vendor)
    shelf.put([replace(vendor, number=6, issued=NOW - 2 * DAY).endorsement(TCB_INFO)], "vendor")
    assert (
        shelf.put([replace(vendor, number=5, issued=NOW - timedelta(minutes=1)).endorsement(TCB_INFO)], "vendor") == ()
    )


def test_another_process_that_was_faster_is_heard_and_not_overwritten(
    store: Store, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the index and storing, somebody else stores something newer."""
    mine, other = open_shelf(store, vendor), open_shelf(store, vendor)
    improves = mine._improves

    def meanwhile(one: Endorsement, origin: Origin) -> bool:
        decided = improves(one, origin)
        monkeypatch.setattr(mine, "_improves", improves)
        other.put([replace(vendor, number=9).endorsement(TCB_INFO)], "vendor")
        return decided

    monkeypatch.setattr(mine, "_improves", meanwhile)
    mine.put([vendor.endorsement(TCB_INFO), vendor.endorsement(PCK_CRL)], "vendor")
    other.look()
    assert set(mine.parts()) == set(other.parts()) == {TCB_INFO, PCK_CRL}
    assert number(mine) == number(other) == 9


def test_storing_is_given_up_where_others_are_always_faster(
    store: Store, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = open_shelf(store, vendor), open_shelf(store, vendor)
    improves, numbers = mine._improves, count(10)

    def meanwhile(one: Endorsement, origin: Origin) -> bool:
        other.put([replace(vendor, number=next(numbers)).endorsement(PCK_CRL)], "vendor")
        return improves(one, origin)

    monkeypatch.setattr(mine, "_improves", meanwhile)
    with pytest.raises(StoreError, match="other processes store endorsements all the time"):
        mine.put([vendor.endorsement(TCB_INFO)], "vendor")
    assert next(numbers) == 10 + shelves.MAX_TRIES
