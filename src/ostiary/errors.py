"""Every exception of Ostiary, drawn as a tree. Standard library only, so that the launcher can import it.

::

    OstiaryError
    ├─ InputError                bad input: the document, request or file is not what its format says
    │  ├─ SessionFormatError     a session text; carries one finding for each mistake
    │  ├─ EvidenceFormatError    evidence bytes that do not parse
    │  └─ TooLargeError          over a named bound
    ├─ RefusedError              understood, and refused by a rule
    │  ├─ IdentityRequiredError  the rule needs a client certificate and none was shown
    │  ├─ NotAuthorizedError     the key shown may not do this
    │  ├─ ChallengeRefusedError  the nonce is unknown, spent, expired, or another connection's
    │  ├─ EvidenceRefusedError   evidence that is not authentic under the configured roots
    │  │  └─ EndorsementsMissingError  none that it could be verified with
    │  ├─ KeysUnavailableError   the keys that evidence is signed with cannot be had
    │  ├─ AppraisalRefusedError  authentic, but not what the session admits; carries every mismatch
    │  ├─ ReleaseRefusedError    a configuration that cannot be made as the session asks
    │  │  ├─ SecretUnavailableError  for want of the value of a secret
    │  │  └─ VolumeUnavailableError  for want of a volume that may be used as asked
    │  └─ InconsistentLogError   a log that does not go on from what a witness saw of it
    ├─ NotFoundError             no such session, version, value
    ├─ ConflictError             somebody else was faster, or the predecessor is not the current version
    │  ├─ TagConflictError       a change of files that does not follow their recorded state
    │  └─ OtherSizeError         the witness saw another size of the log last; carries it
    ├─ ConfigurationError        our own options, files or environment are wrong
    ├─ StoreError                the database or its key
    │  └─ TamperedError          stored state that does not verify: changed, swapped, dropped or turned back
    │     └─ RollbackError       an earlier state of the database, or one of another history, was put in its place
    ├─ OutsideError              a server, daemon or kernel facility outside us failed or cannot be reached
    │  ├─ AwayError              a service that cannot be reached now, or fails now, and may answer later
    │  ├─ SwappedError           a service shows another proposal than the one that its id says
    │  └─ UnreadableError       a service shows a proposal whose session this version cannot read
    └─ DeniedError               what a client is told when the service refuses its evidence

`message` is one sentence for a person: where, what was found, what was expected, what to do next. `causes` go from the
outside in, one sentence each. Neither ever holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass


class OstiaryError(Exception):
    """Base of all. `str(error)` is the message and its causes, joined by ": "."""

    def __init__(self, message: str, *causes: str) -> None:
        super().__init__(message, *causes)
        self.message = message
        self.causes = causes

    @property
    def chain(self) -> tuple[str, ...]:
        """The message followed by its causes, from the outside in."""
        return (self.message, *self.causes)

    def __str__(self) -> str:
        return ": ".join(self.chain)


class InputError(OstiaryError):
    """Bad input: the caller can mend the document, request or file."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to say about a place in a session text.

    line, column: from 1; 0 when the finding concerns the document as a whole.
    path: as in `services[0].attestation.signer`; empty for the document.
    """

    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line} column {self.column}" if self.line else ""
        return ": ".join(part for part in (where, self.path, self.message) if part)


class SessionFormatError(InputError):
    """A session text with one or more mistakes, all of them reported, in the order of the text."""

    def __init__(self, message: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(message, *(str(finding) for finding in findings))
        self.findings = findings


class EvidenceFormatError(InputError):
    """Evidence bytes that do not parse: field, offset, found, expected."""


class TooLargeError(InputError):
    """Input over a named bound."""


class RefusedError(OstiaryError):
    """Understood, and refused by a rule."""


class IdentityRequiredError(RefusedError):
    """The rule needs to know the caller's key and the connection has none."""


class NotAuthorizedError(RefusedError):
    """The caller's key may not do this."""


class ChallengeRefusedError(RefusedError):
    """A nonce that is unknown, spent, expired, or was given to another connection."""


class EvidenceRefusedError(RefusedError):
    """Evidence that is not authentic, or not judged acceptable, under the configured roots."""


class EndorsementsMissingError(EvidenceRefusedError):
    """No endorsements can be used for this evidence. parts: names of those that are missing or have run out."""

    def __init__(self, message: str, *causes: str, parts: tuple[str, ...]) -> None:
        super().__init__(message, *causes)
        self.parts = parts


class KeysUnavailableError(RefusedError):
    """The keys of the session's attestation service cannot be had. The causes are not for the peer."""


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One factor of the appraisal that did not hold.

    factor: as the session language spells it, such as `mrenclave` or `tolerate: debug-mode`.
    found: what the evidence says. expected: what the session admits. advice: what the operator could do.
    `expected` is for those who may read the session; the peer is told `factor`, `found` and nothing else.
    """

    factor: str
    found: str
    expected: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.factor}: found {self.found}, expected {self.expected}"
        return f"{text}; {self.advice}" if self.advice else text


@dataclass(frozen=True, kw_only=True)
class Held:
    """One factor of the appraisal that held. Members as of `Mismatch`."""

    factor: str
    found: str
    expected: str


OTHER_TEE = "tee"
"""The factor of the mismatch of a variant that is not for the evidence's TEE, which has no other then."""
Factor = Held | Mismatch


@dataclass(frozen=True, kw_only=True)
class JudgedVariant:
    """What became of one attestation variant. index: from 0, in the service with its variables resolved."""

    index: int
    factors: tuple[Factor, ...]

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """What keeps it from admitting; empty: it admits."""
        return tuple(factor for factor in self.factors if isinstance(factor, Mismatch))

    @property
    def distance(self) -> tuple[bool, int]:
        """How far it is from admitting, the nearest first: variants of another TEE are the furthest."""
        mismatches = self.mismatches
        return any(mismatch.factor == OTHER_TEE for mismatch in mismatches), len(mismatches)


@dataclass(frozen=True, kw_only=True)
class AppraisalReport:
    """Everything that an appraisal looked at. general: what does not depend on the variant. variants: each of them."""

    general: tuple[Factor, ...]
    variants: tuple[JudgedVariant, ...]

    @property
    def nearest(self) -> JudgedVariant | None:
        """The first of the evidence's TEE with the fewest mismatches, else the first; None without variants."""
        return min(self.variants, key=lambda variant: variant.distance, default=None)

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """What has to change: of `general`, and of the nearest variant."""
        nearest = self.nearest
        general = tuple(factor for factor in self.general if isinstance(factor, Mismatch))
        return general if nearest is None else general + nearest.mismatches


class AppraisalRefusedError(RefusedError):
    """Authentic evidence that the session does not admit; `mismatches` holds every factor that failed.

    report: what held as well, and every variant; None where nothing was compared.
    """

    def __init__(self, message: str, mismatches: tuple[Mismatch, ...], report: AppraisalReport | None = None) -> None:
        super().__init__(message, *(str(mismatch) for mismatch in mismatches))
        self.mismatches = mismatches
        self.report = report


class ReleaseRefusedError(RefusedError):
    """A configuration that cannot be made as the session asks; nothing was released."""


class SecretUnavailableError(ReleaseRefusedError):
    """The value of a secret cannot be had.

    The causes are not for the peer; the message may name the secret to a program that was admitted, and both to those
    who may read or change the session that has it.
    """


class VolumeUnavailableError(ReleaseRefusedError):
    """A volume cannot be used as asked. The message names the volume only; the causes are not for the peer."""


class InconsistentLogError(RefusedError):
    """A log that does not go on from what the witness saw of it."""


class NotFoundError(OstiaryError):
    """No such session, version or value, or not for this caller to know."""


class ConflictError(OstiaryError):
    """The state moved: read again, merge, retry."""


class TagConflictError(ConflictError):
    """A change of protected files that does not follow the recorded one. current: the tag recorded, None if none."""

    def __init__(self, message: str, *causes: str, current: bytes | None) -> None:
        super().__init__(message, *causes)
        self.current = current


class OtherSizeError(ConflictError):
    """The witness saw another size of the log last: `size`, in leaves."""

    def __init__(self, message: str, *causes: str, size: int) -> None:
        super().__init__(message, *causes)
        self.size = size


class ConfigurationError(OstiaryError):
    """Our own options, files or environment are wrong."""


class StoreError(OstiaryError):
    """The database cannot be read or written. outcome_open: of a commit that may stand all the same."""

    outcome_open = False


class TamperedError(StoreError):
    """Stored state does not verify. Nothing of it was used."""


class RollbackError(TamperedError):
    """The database is authentic but not the newest there was, or of another history than the one remembered."""


class OutsideError(OstiaryError):
    """Something outside us failed: a server, a daemon, the kernel."""


class AwayError(OutsideError):
    """A service that cannot be reached now, or fails now. Asked again, it may answer."""


class SwappedError(OutsideError):
    """A service shows a proposal that is not what its id, or the session, says. Nobody signs it."""


class UnreadableError(OutsideError):
    """A service shows a proposal whose session this version cannot read. Nobody approves it."""


class DeniedError(OstiaryError):
    """The service refused. status: of HTTP. denial: the id under which it logged the reason, "" if none."""

    def __init__(self, message: str, *causes: str, status: int, denial: str = "") -> None:
        super().__init__(message, *causes)
        self.status = status
        self.denial = denial
