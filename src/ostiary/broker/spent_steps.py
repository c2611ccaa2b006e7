"""Which time steps of a shared secret are used up: one small record of the store for each secret of each session.

By logical name::

    otp/SESSION/SHA-256 of the shared secret, in hex

A record is written at each accepted one-time password in place of the one before, and never deleted: a secret that
leaves a session and comes back finds its steps spent. So there are as many as secrets that authors ever put into a
session and people used; no start and no stranger adds to them beyond that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ostiary.errors import StoreError
from ostiary.store import Record, Write

_FORM = 1


@dataclass(frozen=True, kw_only=True)
class SpentSteps:
    """The steps of one secret that were accepted, and all steps before them.

    newest: the highest step that was ever accepted, None if none was. before: whether the one before it was, too.
    Steps below those two count as spent, so that a clock which is turned back makes no old password good again.
    """

    newest: int | None = None
    before: bool = False

    def __contains__(self, step: int) -> bool:
        if self.newest is None:
            return False
        return step < self.newest - 1 or step == self.newest or (self.before and step == self.newest - 1)

    def spend(self, step: int) -> SpentSteps:
        """With `step`, which must not be spent yet."""
        if self.newest is not None and step < self.newest:
            return SpentSteps(newest=self.newest, before=True)
        return SpentSteps(newest=step, before=step - 1 in self)


def record_name(session: str, secret: bytes) -> str:
    """The logical name of the record. It leaves this process as a keyed hash only."""
    return f"otp/{session}/{hashlib.sha256(secret).hexdigest()}"


def read_spent(record: Record | None) -> SpentSteps:
    """What a record says; without one nothing is spent. Raises StoreError for a form of a later version."""
    if record is None:
        return SpentSteps()
    members = json.loads(record.value)
    if members["form"] != _FORM:
        raise StoreError(
            f"a record of spent one-time passwords has form {members['form']}, expected {_FORM}: a newer Ostiary wrote "
            "it; run that"
        )
    return SpentSteps(newest=members["newest"], before=members["before"])


def write_spent(name: str, spent: SpentSteps, replaced: Record | None) -> Write:
    """The write that puts `spent` in the place of the record that was read, and of no other."""
    value = json.dumps({"form": _FORM, "newest": spent.newest, "before": spent.before}).encode()
    return Write(name=name, value=value, expected_version=0 if replaced is None else replaced.version)
