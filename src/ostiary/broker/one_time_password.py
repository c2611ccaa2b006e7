"""One-time passwords by time, RFC 6238: HMAC-SHA-1, six digits, steps of 30 s. Source: session language, 12.8."""

from __future__ import annotations

import asyncio
from datetime import datetime

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from ostiary.audit import Kind, entry
from ostiary.broker.cas import Cas, log
from ostiary.broker.spent_steps import read_spent, record_name, write_spent
from ostiary.errors import ConflictError, RefusedError

DIGITS = 6
STEP_SECONDS = 30

# Scripts of SCONE's users look for these two texts.
_WRONG = "The given One-time Password is invalid. Please try again."
_USED = "A One-time Password was already used within this time-step. Please try again in the next time-step"


async def spend_one_time_password(
    cas: Cas, *, session: str, service: str, secret: bytes | None, password: str | None
) -> None:
    """Use up the password that a program brought for SESSION/SERVICE, which has this shared secret, or has none.

    Guarantees on return: without a secret nothing. With one, the password is that of the current time step or of the
    one before; nobody else was or will be let in by this secret and that step in any service of the session, not after
    a restart either; the step is durably spent, whatever becomes of the start. Each comparison takes the same time
    for right and wrong passwords of the same length, and what fails is counted before anything else is read.
    Does not guarantee anything about the program: whoever sees a password first, or knows the secret, may use it.

    Raises RefusedError (missing, wrong, used, or too many wrong ones lately) and StoreError; a missing password costs
    nothing, a used one does not count as wrong.
    """
    if secret is None:
        if password is not None:
            log.info("%s/%s was given a one-time password that it does not ask for; ignored", session, service)
        return
    if password is None:
        raise RefusedError(
            f"service {session}/{service} asks for a one-time password and none was given",
            f"write it behind the service, SCONE_CONFIG_ID={session}/{service}@<otp>",
        )
    now = cas.now()
    cas.guesses.check(session, now)
    steps = _steps_of(password, secret, now)
    if not steps:
        cas.guesses.failed(session, now)
        raise RefusedError(_WRONG)
    await _spend(cas, session, service, secret, steps)


def _steps_of(password: str, secret: bytes, now: datetime) -> tuple[int, ...]:
    """The steps that count at `now` and have this password: mostly none or one."""
    totp = TOTP(secret, DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 - RFC 6238; HMAC needs no collision resistance
    current = int(now.timestamp()) // STEP_SECONDS
    return tuple(step for step in (current, current - 1) if step >= 0 and _is_of(totp, password, step))


def _is_of(totp: TOTP, password: str, step: int) -> bool:
    try:
        totp.verify(password.encode(), step * STEP_SECONDS)
    except InvalidToken:
        return False
    return True


async def _spend(cas: Cas, session: str, service: str, secret: bytes, steps: tuple[int, ...]) -> None:
    name = record_name(session, secret)
    # Ends: each conflict means that a step was spent meanwhile, and soon all of ours are, or are of the past.
    while True:
        record = cas.store.get(name)
        spent = read_spent(record)
        step = next((step for step in steps if step not in spent), None)
        if step is None:
            raise RefusedError(_USED)
        leaf = entry(
            Kind.ONE_TIME_PASSWORD_USED, {"session": session, "service": service, "step": step}, cas.now(), cas.random
        )
        try:
            await asyncio.wrap_future(cas.store.commit([write_spent(name, spent.spend(step), record)], leaf))
        except ConflictError:
            continue
        return
