"""One-time passwords: who comes in with which, how often, and what he is told otherwise."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.simulators.authenticator import SECRET, SECRET_BASE32, password_at, wrong_password
from tests.unit.broker.conftest import NOW, Desk

from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.guesses import MAX_FAILURES, PERIOD
from ostiary.broker.open import make_cas
from ostiary.broker.spent_steps import record_name
from ostiary.broker.upload import upload_session
from ostiary.errors import InputError, StoreError
from ostiary.store import Write, open_store

if TYPE_CHECKING:
    from pathlib import Path

STEP = timedelta(seconds=30)
OTHER = b"another secret of 16+ bytes"
WRONG = "The given One-time Password is invalid. Please try again."
USED = "A One-time Password was already used within this time-step. Please try again in the next time-step"


def text(
    name: str = "a", *, of_session: str | None = SECRET_BASE32, services: str | None = None, more: str = ""
) -> str:
    """A session with `mode: none` and services `s` and `t`, the first with an own secret if `services` has one."""
    session = "" if of_session is None else f", one_time_password_shared_secret: {of_session}"
    own = "" if services is None else f", one_time_password_shared_secret: {services}"
    return (
        f'version: "0.3.12"\nname: {name}\nsecurity: {{attestation: {{mode: none{session}}}}}\n'
        f"services: [{{name: s, command: p{own}}}, {{name: t, command: q}}]\n{more}"
    )


def now(desk: Desk) -> datetime:
    return desk.cas.now()


@pytest.mark.parametrize(
    ("seconds", "password"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (2000000000, "279037")],
)
def test_f200_the_passwords_are_those_of_rfc_6238(desk: Desk, alice: Caller, seconds: int, password: str) -> None:
    """F200: the RFC's vectors (appendix B, SHA-1, the last six digits) open a service at their times."""
    desk.upload(text(), alice)
    desk.pass_time(datetime.fromtimestamp(seconds, UTC) - now(desk))
    assert desk.denied("a/s@000000") == WRONG
    assert desk.argv(f"a/s@{password}") == [b"p"]


def test_f198_without_evidence_the_one_time_password_is_asked_for_all_the_same(desk: Desk, alice: Caller) -> None:
    """F198: mode none releases without evidence, and nothing without the password."""
    desk.upload(text(), alice)
    missing = "service a/s asks for a one-time password and none was given: write it behind the service, "
    assert desk.denied("a/s") == missing + "SCONE_CONFIG_ID=a/s@<otp>"
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]
    desk.upload(text("b", of_session=None), alice)
    assert desk.argv("b/s") == [b"p"]


def test_f201_a_password_is_good_once_in_its_time_step(desk: Desk, alice: Caller) -> None:
    """F201: the second use is refused with its own message; in the next step there is another one."""
    desk.upload(text(), alice)
    password = password_at(now(desk))
    assert desk.argv(f"a/s@{password}") == [b"p"]
    assert desk.denied(f"a/s@{password}") == USED
    desk.pass_time(STEP)
    assert desk.denied(f"a/s@{password}") == USED
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]


def test_f201_once_counts_for_all_services_that_share_the_secret(desk: Desk, alice: Caller) -> None:
    """F201: not for another session with the same secret, and not for another secret of the session."""
    desk.upload(text(), alice)
    desk.upload(text("b"), alice)
    desk.upload(text("c", services=base64.b32encode(OTHER).decode()), alice)
    password = password_at(now(desk))
    assert desk.argv(f"a/s@{password}") == [b"p"]
    assert desk.denied(f"a/t@{password}") == USED
    assert desk.argv(f"b/t@{password}") == [b"q"]
    assert desk.argv(f"c/t@{password}") == [b"q"]
    assert desk.argv(f"c/s@{password_at(now(desk), OTHER)}") == [b"p"]


@pytest.mark.parametrize(("steps", "admitted"), [(-2, False), (-1, True), (0, True), (1, False)])
def test_the_current_step_and_the_one_before_count(desk: Desk, alice: Caller, steps: int, admitted: bool) -> None:
    desk.upload(text(), alice)
    service_id = f"a/s@{password_at(now(desk), steps=steps)}"
    if admitted:
        assert desk.argv(service_id) == [b"p"]
    else:
        assert desk.denied(service_id) == WRONG


def test_the_step_before_stays_good_after_the_current_one_was_used(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    for steps in (0, -1):
        assert desk.argv(f"a/s@{password_at(now(desk), steps=steps)}") == [b"p"]
        assert desk.denied(f"a/s@{password_at(now(desk), steps=steps)}") == USED
    desk.pass_time(STEP)
    assert desk.denied(f"a/s@{password_at(now(desk), steps=-1)}") == USED


def test_a_clock_that_is_turned_back_makes_no_old_password_good_again(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    old = password_at(now(desk))
    desk.pass_time(10 * STEP)
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]
    desk.pass_time(-10 * STEP)
    assert desk.denied(f"a/s@{old}") == USED


def test_a_spent_step_stays_spent_after_a_restart(tmp_path: Path, alice: Caller) -> None:
    password = password_at(NOW)
    for start in range(2):
        with open_store(tmp_path / "kept", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
            desk = Desk(cas=make_cas(store, roots=(), now=lambda: NOW, random=os.urandom))
            if start:
                assert desk.denied(f"a/s@{password}") == USED
            else:
                desk.upload(text(), alice)
                assert desk.argv(f"a/s@{password}") == [b"p"]


def test_a_secret_that_comes_back_finds_its_steps_spent(desk: Desk, alice: Caller) -> None:
    first = desk.upload(text(), alice)
    password = password_at(now(desk))
    desk.start(f"a/s@{password}")
    second = desk.upload(text(of_session=None, more=f"predecessor: {first}\n"), alice)
    assert desk.argv("a/s") == [b"p"]
    desk.upload(text(more=f"predecessor: {second}\n"), alice)
    assert desk.denied(f"a/s@{password}") == USED


def test_of_many_who_come_with_one_password_at_once_one_is_let_in(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    password = password_at(now(desk))

    async def all_at_once() -> list[object]:
        ids = [f"a/{'st'[number % 2]}@{password}" for number in range(8)]
        return await asyncio.gather(*(desk.begin(service_id) for service_id in ids), return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    denied = [outcome for outcome in outcomes if isinstance(outcome, DeniedRelease)]
    assert len(denied) == 7
    assert {str(outcome.told) for outcome in denied} == {USED}


def test_two_passwords_of_two_steps_at_once_are_both_let_in(desk: Desk, alice: Caller) -> None:
    """The second finds the record changed under it, and reads it again."""
    desk.upload(text(), alice)

    async def both() -> list[object]:
        ids = [f"a/s@{password_at(now(desk), steps=steps)}" for steps in (0, -1)]
        return [start.configuration.argv for start in await asyncio.gather(*map(desk.begin, ids))]

    assert asyncio.run(both()) == [(b"p",), (b"p",)]


def overtaken(desk: Desk, service_id: str, update: str, author: Caller) -> object:
    """The argv of a start whose session is updated after its password was spent and before it is released."""
    store = desk.cas.store

    async def queued(count: int) -> None:
        while len(store._waiting) != count:
            await asyncio.sleep(0.001)

    async def run() -> object:
        with store._lock:
            # The writer takes this one and stands before the lock.
            bait = asyncio.wrap_future(store.commit([], b"leaf"))
            await queued(0)
            started = asyncio.create_task(desk.begin(service_id))
            await queued(1)
            updated = asyncio.create_task(upload_session(desk.cas, update.encode(), author))
            await queued(2)
        await asyncio.gather(bait, updated)
        return (await started).configuration.argv

    return asyncio.run(run())


def test_a_password_is_spent_once_however_often_the_release_begins_anew(desk: Desk, alice: Caller) -> None:
    """The release is judged by the new version, and the password is not asked for a second time."""
    first = desk.upload(text(), alice)
    update = text(more=f"predecessor: {first}\n").replace("command: p", "command: new")
    assert overtaken(desk, f"a/s@{password_at(now(desk))}", update, alice) == (b"new",)


def test_a_password_that_an_update_makes_wrong_opens_nothing(desk: Desk, alice: Caller) -> None:
    """It was right, and is spent, under the secret of the version before."""
    first = desk.upload(text(), alice)
    update = text(of_session=base64.b32encode(OTHER).decode(), more=f"predecessor: {first}\n")
    with pytest.raises(DeniedRelease) as denied:
        overtaken(desk, f"a/s@{password_at(now(desk))}", update, alice)
    assert str(denied.value.told) == WRONG
    assert desk.argv(f"a/s@{password_at(now(desk), OTHER)}") == [b"p"]


def test_f202_a_service_s_own_secret_beats_the_session_s(desk: Desk, alice: Caller) -> None:
    """F202: the session's password is refused, also where it would still be good."""
    desk.upload(text(services=base64.b32encode(OTHER).decode()), alice)
    assert desk.denied(f"a/s@{password_at(now(desk))}") == WRONG
    assert desk.argv(f"a/s@{password_at(now(desk), OTHER)}") == [b"p"]
    assert desk.denied(f"a/t@{password_at(now(desk), OTHER)}") == WRONG
    assert desk.argv(f"a/t@{password_at(now(desk))}") == [b"q"]


def test_f202_a_service_may_have_a_secret_where_the_session_has_none(desk: Desk, alice: Caller) -> None:
    """F202."""
    desk.upload(text(of_session=None, services=SECRET_BASE32), alice)
    assert "asks for a one-time password" in desk.denied("a/s")
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]
    assert desk.argv("a/t") == [b"q"]


VALUE = "secrets: [{{name: x, kind: {}}}]\n"
ASCII = VALUE.format(f"ascii, value: {SECRET_BASE32}")
BINARY = VALUE.format(f"binary, value: {SECRET.hex()}")
FRAGMENT = VALUE.format(f"config-fragment, value: {SECRET_BASE32}")


@pytest.mark.parametrize("place", ["of_session", "services"])
@pytest.mark.parametrize(
    ("variable", "secrets"),
    [("$$SCONE::x$$", ASCII), ("$$SCONE::x:base32nopad$$", BINARY), ("$$SCONE::x$$", FRAGMENT)],
)
def test_f203_the_secret_may_be_a_variable(desk: Desk, alice: Caller, place: str, variable: str, secrets: str) -> None:
    """F203: ascii text or a fragment in base32, or bytes with :base32nopad; of the session or of a service."""
    desk.upload(text(**{"of_session": None, place: variable}, more=secrets), alice)  # type: ignore[arg-type]
    assert "asks for a one-time password" in desk.denied("a/s")
    assert desk.denied(f"a/s@{wrong_password(now(desk))}") == WRONG
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]


def test_f203_a_generated_binary_secret_serves_as_well(desk: Desk, alice: Caller) -> None:
    """F203: whoever receives it as a program can make passwords."""
    exported = text(of_session=None, services="$$SCONE::x:base32nopad$$", more=VALUE.format("binary, size: 16"))
    desk.upload(exported.replace("command: q", "command: q $$SCONE::x:hex$$"), alice)
    _, secret = desk.argv("a/t")
    assert isinstance(secret, bytes)
    assert desk.argv(f"a/s@{password_at(now(desk), bytes.fromhex(secret.decode()))}") == [b"p"]


@pytest.mark.parametrize("place", ["of_session", "services"])
@pytest.mark.parametrize(
    ("variable", "exported"),
    [
        ("$$SCONE::x$$", "binary, value: 3132333435363738393031323334353637383930"),
        ("$$SCONE::x:base32nopad$$", "binary, value: 313233343536373839303132333435"),
        ("$$SCONE::x$$", "ascii, value: not base32"),
        ("$$SCONE::x$$", "ascii, value: GEZDGNBVGY3TQOJQ"),
        ("$$SCONE::x$$", "ascii"),
        ("$$SCONE::x$$", "config-fragment, value: [GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ]"),
        ("$$SCONE::x$$", "config-fragment, value: ''"),
        ("$$SCONE::x$$", None),
    ],
)
def test_f203_a_secret_that_does_not_fit_refuses_every_start(
    desk: Desk, alice: Caller, place: str, variable: str, exported: str | None
) -> None:
    """F203: an imported secret, which the upload knows nothing of: raw, short, no base32, a list, or gone."""
    if exported is not None:
        source = f'version: "0.3.12"\nname: source\nsecrets: [{{name: x, kind: {exported}, export: {{session: a}}}}]\n'
        desk.upload(source, alice)
    imports = "secrets: [{name: x, import: {session: source, secret: x}}]\n"
    # The session's own secret must not stand in for the service's.
    secrets = {"of_session": SECRET_BASE32, place: variable}
    desk.upload(text(**secrets, more=imports), alice)
    for service_id in ("a/s", f"a/s@{password_at(now(desk))}", f"a/s@{wrong_password(now(desk))}"):
        assert "security rests on what cannot be resolved" in desk.denied(service_id)
    if place == "services":
        assert desk.argv(f"a/t@{password_at(now(desk))}") == [b"q"]
    else:
        assert "security rests on what cannot be resolved" in desk.denied(f"a/t@{password_at(now(desk))}")


@pytest.mark.parametrize("form", ["hex", "base64", "base32"])
def test_f203_an_import_has_no_other_format_than_base32nopad(desk: Desk, alice: Caller, form: str) -> None:
    """F203: refused at upload, for some bytes in another format would happen to be base32."""
    imports = "secrets: [{name: x, import: {session: source, secret: x}}]\n"
    with pytest.raises(InputError, match=r"write \$\$SCONE::x:base32nopad\$\$"):
        desk.upload(text(of_session=f"$$SCONE::x:{form}$$", more=imports), alice)


def test_an_import_that_changes_changes_the_passwords(desk: Desk, alice: Caller) -> None:
    source = 'version: "0.3.12"\nname: b\nsecrets: [{name: x, kind: ascii, value: {VALUE}, export: {session: a}}]\n'
    first = desk.upload(source.replace("{VALUE}", SECRET_BASE32), alice)
    desk.upload(text(of_session="$$SCONE::y$$", more="secrets: [{name: y, import: {session: b, secret: x}}]\n"), alice)
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]
    other = source.replace("{VALUE}", base64.b32encode(OTHER).decode().rstrip("=")) + f"predecessor: {first}\n"
    desk.upload(other, alice)
    assert desk.denied(f"a/s@{password_at(now(desk), steps=-1)}") == WRONG
    assert desk.argv(f"a/s@{password_at(now(desk), OTHER)}") == [b"p"]


def test_five_failures_a_minute_and_nobody_is_heard_until_the_first_is_a_minute_old(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    desk.upload(text("b"), alice)
    for _ in range(MAX_FAILURES):
        assert desk.denied(f"a/s@{wrong_password(now(desk))}") == WRONG
        desk.pass_time(timedelta(seconds=1))
    slow = "too many wrong One-time Passwords were given for session a: try again in 55 s"
    assert desk.denied(f"a/s@{password_at(now(desk))}") == slow
    assert desk.denied(f"a/t@{password_at(now(desk))}") == slow
    assert desk.argv(f"b/s@{password_at(now(desk))}") == [b"p"]
    desk.pass_time(PERIOD - MAX_FAILURES * timedelta(seconds=1))
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]
    assert desk.denied(f"a/s@{wrong_password(now(desk))}") == WRONG
    assert "too many wrong" in desk.denied(f"a/s@{wrong_password(now(desk))}")


def test_what_is_no_guess_does_not_count_as_one(desk: Desk, alice: Caller) -> None:
    """A missing password, and one that was right and is used."""
    desk.upload(text(), alice)
    password = password_at(now(desk))
    desk.start(f"a/s@{password}")
    for _ in range(MAX_FAILURES):
        assert desk.denied(f"a/s@{password}") == USED
        assert "none was given" in desk.denied("a/s")
    assert desk.denied(f"a/s@{wrong_password(now(desk))}") == WRONG


@pytest.mark.parametrize("given", ["", "28708", "2870820", "28708x", "2870.2"])
def test_what_is_no_password_at_all_is_a_wrong_one(desk: Desk, alice: Caller, given: str) -> None:
    desk.upload(text(), alice)
    assert desk.denied(f"a/s@{given}") == WRONG


def test_a_password_that_nobody_asks_for_is_ignored_and_logged_without_it(
    desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    desk.upload(text(of_session=None), alice)
    with caplog.at_level(logging.INFO, logger="ostiary.broker"):
        assert desk.argv("a/s@424242") == [b"p"]
    assert "a/s was given a one-time password that it does not ask for; ignored" in caplog.text
    assert "424242" not in caplog.text


def test_a_password_stands_in_no_log_and_no_refusal(
    desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    desk.upload(text(), alice)
    wrong, right = wrong_password(now(desk)), password_at(now(desk))
    with caplog.at_level(logging.DEBUG):
        told = desk.denied(f"a/s@{wrong}")
        desk.start(f"a/s@{right}")
    assert "denied a/s, denial " in caplog.text
    assert WRONG in caplog.text
    for password in (wrong, right):
        assert password not in caplog.text + told


def test_a_record_of_a_later_version_is_not_guessed_at(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    write = Write(name=record_name("a", SECRET), value=b'{"form": 2}', expected_version=0)
    desk.cas.store.commit([write], b"leaf").result()
    with pytest.raises(StoreError, match="has form 2, expected 1: a newer Ostiary wrote it"):
        desk.start(f"a/s@{password_at(now(desk))}")


DELEGATED = """\
version: "0.3.12"
name: a
security: {SECURITY}
services: [{{name: s, command: p}}]
secrets: [{{name: x, import: {{session: source, secret: x}}}}]
"""
SOURCE = """\
version: "0.3.12"
name: source
secrets: [{{name: x, kind: config-fragment, value: {VALUE}, export: {{session: a}}}}]
"""


@pytest.mark.parametrize(
    ("security", "value"),
    [
        ("$$SCONE::x$$", f"{{attestation: {{mode: none, one_time_password_shared_secret: {SECRET_BASE32}}}}}"),
        ("{attestation: $$SCONE::x$$}", f"{{mode: none, one_time_password_shared_secret: {SECRET_BASE32}}}"),
    ],
)
def test_f205_a_delegated_section_asks_for_a_password_until_it_changes(
    desk: Desk, alice: Caller, security: str, value: str
) -> None:
    """F205: a fragment's changes take effect at the next start; one that does not fit refuses, as one that is gone."""
    first = desk.upload(SOURCE.format(VALUE=value), alice)
    desk.upload(DELEGATED.format(SECURITY=security), alice)
    assert "asks for a one-time password" in desk.denied("a/s")
    assert desk.argv(f"a/s@{password_at(now(desk))}") == [b"p"]
    short = SOURCE.format(VALUE=value.replace(SECRET_BASE32, SECRET_BASE32[:16])) + f"predecessor: {first}\n"
    second = desk.upload(short, alice)
    for service_id in ("a/s", f"a/s@{password_at(now(desk), steps=-1)}"):
        assert "security rests on what cannot be resolved" in desk.denied(service_id)
    without = value.replace(f", one_time_password_shared_secret: {SECRET_BASE32}", "")
    desk.upload(SOURCE.format(VALUE=without) + f"predecessor: {second}\n", alice)
    assert desk.argv("a/s") == [b"p"]
