"""The last evidence of each platform of each service: bounded, sealed, there after a restart."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from tests.simulators.sgx_platform import NOW

from ostiary.audit import Frontier
from ostiary.broker import last_evidence as module
from ostiary.broker.last_evidence import INDEX, MAX_EVIDENCE_BYTES, RENEW_AFTER, LastEvidence, LastEvidences
from ostiary.errors import ConflictError, StoreError
from ostiary.store import Store, Write, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as made:
        yield made


def evidence(platform: str = "p", *, service: str = "s", data: bytes = b"quote", late: int = 0) -> LastEvidence:
    return LastEvidence(
        session="ns/a",
        service=service,
        tee="snp",
        platform=platform,
        at=NOW + timedelta(hours=late),
        evidence=data,
        sent=b"pem",
    )


def open_all(store: Store) -> LastEvidences:
    return LastEvidences(store, now=lambda: NOW, random=os.urandom)


def test_what_was_noted_is_there_at_once_and_after_a_restart(store: Store) -> None:
    lasts = open_all(store)
    lasts.note(evidence("p"))
    lasts.note(evidence("q"))
    assert list(lasts.all()) == [evidence("p"), evidence("q")]
    lasts.write()
    assert list(lasts.all()) == list(open_all(store).all()) == [evidence("p"), evidence("q")]


def test_the_newest_of_a_platform_takes_the_place_of_the_one_before(store: Store) -> None:
    lasts = open_all(store)
    lasts.note(evidence("p"))
    lasts.note(evidence("q"))
    lasts.write()
    lasts.note(evidence("p", data=b"newer", late=7))
    lasts.write()
    assert [(one.platform, one.evidence) for one in open_all(store).all()] == [("q", b"quote"), ("p", b"newer")]


def test_a_platform_that_starts_often_is_written_seldom(store: Store) -> None:
    lasts = open_all(store)
    for _ in range(3):
        lasts.note(evidence())
        lasts.write()
    seq = store.head.seq
    lasts.note(evidence(late=int(RENEW_AFTER.total_seconds() / 3600) - 1))
    lasts.write()
    assert store.head.seq == seq


def test_services_and_platforms_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERVICES", 2)
    monkeypatch.setattr(module, "MAX_PLATFORMS", 2)
    lasts = open_all(store)
    for platform in "pqr":
        lasts.note(evidence(platform))
        lasts.write()
    assert [one.platform for one in lasts.all()] == ["q", "r"]
    for service in "tu":
        lasts.note(evidence(service=service))
    lasts.write()
    assert [one.service for one in open_all(store).all()] == ["t", "u"]
    for service in "vwx":
        for platform in "pqr":
            lasts.note(evidence(platform, service=service))
    lasts.write()
    assert [(one.service, one.platform) for one in lasts.all()] == [("w", "q"), ("w", "r"), ("x", "q"), ("x", "r")]


def test_evidence_that_is_too_large_is_left_out(store: Store) -> None:
    lasts = open_all(store)
    lasts.note(evidence(data=bytes(MAX_EVIDENCE_BYTES + 1)))
    lasts.write()
    assert (list(lasts.all()), store.records) == ([], 0)


def test_an_index_of_a_later_version_is_refused(store: Store) -> None:
    store.commit([Write(name=INDEX, value=json.dumps({"form": 2}).encode(), expected_version=0)], b"{}").result()
    with pytest.raises(StoreError, match="has form 2, expected 1"):
        open_all(store)


def test_it_is_written_from_time_to_time_and_a_failure_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY", timedelta(0))
    lasts = open_all(store)
    lasts.note(evidence())

    async def story() -> None:
        task = asyncio.create_task(lasts.run())
        while store.records == 0:
            await asyncio.sleep(0.01)
        store.close()
        lasts.note(evidence("q"))
        while "could not be stored" not in caplog.text:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


def test_two_processes_keep_the_evidence_of_both(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = open_all(store), open_all(store)
    read, numbers = mine._read_index, count()

    def meanwhile() -> tuple[int, dict[tuple[str, str], None]]:
        found = read()
        monkeypatch.setattr(mine, "_read_index", read)
        other.note(evidence(service=f"other-{next(numbers)}"))
        other.write()
        return found

    monkeypatch.setattr(mine, "_read_index", meanwhile)
    mine.note(evidence(service="mine"))
    mine.write()
    assert {one.service for one in other.all()} == {"mine", "other-0"}


def test_writing_is_given_up_where_others_are_always_faster(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = open_all(store), open_all(store)
    read, numbers = mine._read_index, count()

    def meanwhile() -> tuple[int, dict[tuple[str, str], None]]:
        found = read()
        other.note(evidence(service=f"other-{next(numbers)}"))
        other.write()
        return found

    monkeypatch.setattr(mine, "_read_index", meanwhile)
    mine.note(evidence(service="mine"))
    with pytest.raises(ConflictError):
        mine.write()
    assert next(numbers) == module.MAX_TRIES
