"""What a board member should look at first: the differences of a proposal that make something weaker. Pure.

Built on `session.diff`, so that a risk is always one of the differences that are shown below it. Guarantees: every
difference that widens is a risk, whatever section it is in, and so is every change that does not narrow of the policy
board, of what is demanded of evidence, of what a program that is attested will do, new ones and the images that they
use included, and of a secret or volume that is there already, or that programs which are there may come to use by its
name. Does not guarantee that a version without risks is a good one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from ostiary.session.diff import Difference, Effect, differences, image_path, is_generated
from ostiary.session.model import (
    AccessPolicy,
    CreatorSubject,
    NoneSubject,
    PolicyBoard,
    Security,
    SecurityAttestation,
    Session,
    Variable,
)


class RiskKind(StrEnum):
    """Names for programs, the worst first."""

    CHANGES_BOARD = "changes-board"
    ASKS_NO_EVIDENCE = "asks-no-evidence"
    TOLERATES_DEBUG = "tolerates-debug"
    HIDDEN_BY_VARIABLE = "hidden-by-variable"
    EXPORTS_SECRET_PUBLICLY = "exports-secret-publicly"  # noqa: S105
    WIDENS_UPDATE = "widens-update"
    CHANGES_CREATOR = "changes-creator"
    ADDS_MEASUREMENT = "adds-measurement"
    EXPORTS_SECRET = "exports-secret"  # noqa: S105
    WIDENS_READ = "widens-read"
    WEAKENS_TCB = "weakens-tcb"
    DROPS_PROTECTION = "drops-protection"
    CHANGES_PROGRAM = "changes-program"
    CHANGES_SECRET = "changes-secret"  # noqa: S105
    CHANGES_VOLUME = "changes-volume"
    WIDENS = "widens"
    """What no other kind names."""


@dataclass(frozen=True, kw_only=True)
class Risk:
    """One risk, and the difference that it is."""

    kind: RiskKind
    difference: Difference

    @property
    def sentence(self) -> str:
        """What the difference means and, where that says too little, why it matters; no secret."""
        meaning = self.difference.meaning
        return f"{meaning}: {_WHY[self.kind]}" if self.kind in _WHY else meaning


def risks(before: Session | None, after: Session) -> tuple[Risk, ...]:
    """The risks of `after` as the version after `before`, the worst first.

    A first version, `before` None, is compared with one that asks for hardware evidence, gives nothing, lets its
    creator read it, nobody update it, and names the same board without its shortcuts: one who may approve alone, in
    words or by an F of 0, and breaking the glass. What stood behind a variable and now stands there in words is
    compared with the same.
    """
    start = nothing_like(after) if before is None else before
    versions = _Versions(before=start, after=after)
    found = dict.fromkeys((*differences(start, after), *differences(_without_variables(start), after)))
    named = [
        Risk(kind=kind, difference=difference)
        for difference in found
        if (kind := _kind(difference, versions)) is not None
    ]
    return tuple(sorted(named, key=lambda risk: _RANK[risk.kind]))


_RANK = {kind: rank for rank, kind in enumerate(RiskKind)}

_WHY = {
    RiskKind.ASKS_NO_EVIDENCE: "anybody can have its secrets",
    RiskKind.TOLERATES_DEBUG: "who runs the host can read the memory of its programs",
    RiskKind.HIDDEN_BY_VARIABLE: "whoever gives the variable its value decides what this says",
}


_NO_ACCESS = AccessPolicy(read=(CreatorSubject(),), update=(NoneSubject(),))


def nothing_like(session: Session) -> Session:
    """The version that a first one is compared with: one that gives nothing."""
    policy, board = session.access_policy, session.policy_board
    creates = None if isinstance(policy, Variable) or policy.create_sessions is None else (NoneSubject(),)
    return Session(
        version=session.version,
        name=session.name,
        access_policy=replace(_NO_ACCESS, create_sessions=creates),
        policy_board=None if board is None else _without_shortcuts(board),
    )


def _without_shortcuts(board: PolicyBoard) -> PolicyBoard:
    """The board as it would be if nobody could decide alone, and a veto held."""
    members = tuple(replace(member, may_approve=False) for member in board.members)
    return replace(board, tolerated_faults=max(board.tolerated_faults, 1), members=members, break_glass=None)


def _without_variables(session: Session) -> Session:
    """Sections that are a variable as they are in a session that gives nothing: nobody knows what they said."""
    policy, security = session.access_policy, session.security
    if isinstance(security, Variable):
        security = Security()
    elif isinstance(security.attestation, Variable):
        security = replace(security, attestation=SecurityAttestation())
    return replace(session, access_policy=_NO_ACCESS if isinstance(policy, Variable) else policy, security=security)


_WIDER = frozenset({Effect.WIDER})
_NOT_NARROWER = frozenset({Effect.WIDER, Effect.CHANGED})
_ANY = frozenset(Effect)

_TABLE: tuple[tuple[re.Pattern[str], frozenset[Effect], RiskKind], ...] = tuple(
    (re.compile(path), effects, kind)
    for path, effects, kind in (
        (r"policy_board\b", _ANY, RiskKind.CHANGES_BOARD),
        (r"access_policy\.(read|list_sessions)$", _WIDER, RiskKind.WIDENS_READ),
        (r"access_policy", _WIDER, RiskKind.WIDENS_UPDATE),
        (r"creator$", _WIDER, RiskKind.CHANGES_CREATOR),
        (r"security(\.attestation)?$", _NOT_NARROWER, RiskKind.WEAKENS_TCB),
        (r"security\.attestation\.(?!one_time_password)", _NOT_NARROWER, RiskKind.WEAKENS_TCB),
        (r"security\.", _NOT_NARROWER, RiskKind.DROPS_PROTECTION),
        (r"services\[[^\]]*\]\.attestation$", _WIDER, RiskKind.ADDS_MEASUREMENT),
        (r"services\[", _WIDER, RiskKind.DROPS_PROTECTION),
        (r"services\[[^\]]*\]\.", _NOT_NARROWER, RiskKind.CHANGES_PROGRAM),
        (r"images\[.*\]\.provide_secrets$", _WIDER, RiskKind.EXPORTS_SECRET),
        (r"images\[", _WIDER, RiskKind.DROPS_PROTECTION),
        (r"images\[", _NOT_NARROWER, RiskKind.CHANGES_PROGRAM),
        (r"secrets\[[^\]]*\]\.export_public$", _WIDER, RiskKind.EXPORTS_SECRET_PUBLICLY),
        (r"(secrets|volumes)\[[^\]]*\]\.export$", _WIDER, RiskKind.EXPORTS_SECRET),
        (r"volumes\[", _WIDER, RiskKind.DROPS_PROTECTION),
        (r"volumes\[", _NOT_NARROWER, RiskKind.CHANGES_VOLUME),
        (r"secrets\[|secret_store$", _NOT_NARROWER, RiskKind.CHANGES_SECRET),
        (r"", _WIDER, RiskKind.WIDENS),
    )
)
"""The first row whose path and effect fit. Paths are those of `session.diff`."""


@dataclass(frozen=True, kw_only=True)
class _Versions:
    """What is compared, and by path what the judgement of a difference needs to know of both."""

    before: Session
    after: Session

    @cached_property
    def services(self) -> dict[str, RiskKind]:
        """What it means that a service is new, or is admitted otherwise: another risk than what its path says."""
        known = {service.name for service in self.before.services}
        asks = _mode(self.after) != "none"
        kinds = {}
        for service in self.after.services:
            path = f"services[{service.name}]"
            kind = RiskKind.ADDS_MEASUREMENT if asks and service.attestation else RiskKind.ASKS_NO_EVIDENCE
            kinds[f"{path}.attestation"] = kind
            if service.name not in known:
                kinds[path] = kind
        return kinds

    @cached_property
    def coming_or_going(self) -> frozenset[str]:
        """Secrets and volumes that are new, or gone: nothing that was there becomes another.

        Without new secrets whose values somebody chooses, where programs that are there may use whatever has a name.
        """
        old, new = (
            {f"secrets[{one.name}]" for one in session.secrets} | {f"volumes[{one.name}]" for one in session.volumes}
            for session in (self.before, self.after)
        )
        chosen = {f"secrets[{one.name}]" for one in self.after.secrets if not is_generated(one)}
        return frozenset((old ^ new) - (chosen if self._uses_any_secret else set()))

    @cached_property
    def _uses_any_secret(self) -> bool:
        """Whether a service of both versions has files made of what is there, with every secret that they name."""
        known = {service.name for service in self.before.services}
        used = {service.image_name for service in self.after.services if service.name in known}
        return any(
            image.name in used
            and image.provide_secrets is None
            and any(file.content is None for file in image.injection_files)
            for image in self.after.images
        )

    @cached_property
    def unused_images(self) -> frozenset[str]:
        """Paths of images that do nothing, as no service uses them; should one do so one day, that is a change."""
        used = {service.image_name for service in self.after.services}
        images = (*self.before.images, *self.after.images)
        return frozenset(image_path(image.name) for image in images if image.name not in used)


def _kind(difference: Difference, versions: _Versions) -> RiskKind | None:
    """The kind of risk; None if it is none."""
    after = versions.after
    kind = next(
        (kind for path, effects, kind in _TABLE if path.match(difference.path) and difference.effect in effects), None
    )
    match kind:
        case RiskKind.WIDENS_UPDATE | RiskKind.WEAKENS_TCB if _is_hidden(difference, after):
            return RiskKind.HIDDEN_BY_VARIABLE
        case RiskKind.WEAKENS_TCB if difference.path.endswith(".mode") and _mode(after) == "none":
            return RiskKind.ASKS_NO_EVIDENCE
        case RiskKind.WEAKENS_TCB if difference.meaning in _DEBUG:
            return RiskKind.TOLERATES_DEBUG
        case RiskKind.ADDS_MEASUREMENT | RiskKind.DROPS_PROTECTION:
            return versions.services.get(difference.path, kind)
        case RiskKind.CHANGES_SECRET | RiskKind.CHANGES_VOLUME if difference.path in versions.coming_or_going:
            return None
        case RiskKind.CHANGES_PROGRAM if difference.path.partition("]")[0] + "]" in versions.unused_images:
            return None
        case _:
            return kind


_DEBUG = frozenset({"tolerates debug-mode", "tolerates software-platform"})
"""Evidence of a software platform proves as little."""


def _is_hidden(difference: Difference, after: Session) -> bool:
    """Whether a variable says how far the access policy, or the demands on evidence, go from now on."""
    hidden = {
        "access_policy": isinstance(after.access_policy, Variable),
        "security": isinstance(after.security, Variable),
        "security.attestation": isinstance(after.attestation, Variable),
        "security.attestation.mode": isinstance(_mode(after), Variable),
    }
    return hidden.get(difference.path, False) or difference.meaning.startswith(_VARIABLE)


_VARIABLE = ("tolerates $$", "ignores $$", "gives what $$")


def _mode(session: Session) -> str | Variable | None:
    attestation = session.attestation
    return attestation.mode if isinstance(attestation, SecurityAttestation) else None
