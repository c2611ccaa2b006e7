"""Two services on one store, as two processes are: what one of them decides or forgets, the other knows at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.broker.conftest import NOW, Desk

from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.broker import identity
from ostiary.broker import open as broker_open
from ostiary.broker.identity import ServerIdentity, open_identity
from ostiary.broker.open import make_cas
from ostiary.errors import ConflictError
from ostiary.secret import generate
from ostiary.store import Write, open_store

OPEN = "security: {attestation: {mode: none}}\n"


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[tuple[Desk, Desk]]:
    with (
        open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as one,
        open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as other,
    ):
        first, second = (
            Desk(cas=make_cas(store, roots=(), now=lambda: NOW, random=os.urandom)) for store in (one, other)
        )
        yield first, second


def text(command: str, more: str = "") -> str:
    return f'version: "0.3.12"\nname: shared\n{OPEN}services: [{{name: s, command: "{command}"}}]\n{more}'


def test_a_session_created_at_one_service_starts_at_the_other(desks: tuple[Desk, Desk], alice: Caller) -> None:
    one, other = desks
    one.upload(text("prog 1"), alice)
    assert other.argv("shared/s") == [b"prog", b"1"]


def test_a_configuration_that_was_kept_ready_is_not_used_after_an_update_at_the_other_service(
    desks: tuple[Desk, Desk], alice: Caller
) -> None:
    one, other = desks
    predecessor = one.upload(text("prog 0"), alice)
    for turn in range(1, 6):
        writer, reader = (one, other) if turn % 2 else (other, one)
        reader.argv("shared/s")
        predecessor = writer.upload(text(f"prog {turn}", f"predecessor: {predecessor}"), alice)
        assert reader.argv("shared/s") == [b"prog", b"%d" % turn]


def test_of_two_updates_of_one_version_the_second_is_refused_wherever_it_comes_in(
    desks: tuple[Desk, Desk], alice: Caller
) -> None:
    one, other = desks
    first = one.upload(text("prog 0"), alice)
    one.upload(text("prog 1", f"predecessor: {first}"), alice)
    with pytest.raises(ConflictError):
        other.upload(text("prog 2", f"predecessor: {first}"), alice)
    assert other.argv("shared/s") == [b"prog", b"1"]


def test_both_services_show_one_authority(desks: tuple[Desk, Desk]) -> None:
    one, other = (open_identity(desk.cas, ["cas"]) for desk in desks)
    assert one.root == other.root
    assert one.chain[1] == other.chain[1]
    assert one.spki != other.spki


def test_services_that_start_first_at_one_time_agree_on_one_authority(
    desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = desks
    faster: list[ServerIdentity] = []

    def generate_slowly(*args: Any, **kwargs: Any) -> Any:
        if not faster:
            monkeypatch.undo()
            faster.append(open_identity(other.cas, ["cas"]))
        return generate(*args, **kwargs)

    monkeypatch.setattr(identity, "generate", generate_slowly)
    assert open_identity(one.cas, ["cas"]).root == faster[0].root


def test_services_that_make_the_first_records_at_one_time_agree_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_writes = broker_open._first_writes
    with (
        open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as one,
        open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as other,
    ):

        def be_overtaken(*args: Any) -> list[Write]:
            writes = first_writes(*args)
            monkeypatch.undo()
            make_cas(other, roots=(), now=lambda: NOW, random=os.urandom)
            return writes

        monkeypatch.setattr(broker_open, "_first_writes", be_overtaken)
        make_cas(one, roots=(), now=lambda: NOW, random=os.urandom)
        assert (one.records, one.head.log_size) == (other.records, other.head.log_size) == (1, 2)
