"""From a refusal to the smallest change of the session that would admit the program, and whether that is wise. Pure.

What an operator reads here is no decision: `appraise` decides, on the session that somebody made of this.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ostiary.appraisal.appraise import ADVISORY_OF_SHORTCUT, examine
from ostiary.appraisal.patch import Operation, Wisdom
from ostiary.appraisal.variants import judge_variant
from ostiary.appraisal.wording import AND
from ostiary.errors import AppraisalReport, InputError, JudgedVariant, Mismatch
from ostiary.evidence.claims import Claims
from ostiary.session import ParsedSession, language, parse_session
from ostiary.session.duration import parse_duration
from ostiary.session.model import SecurityAttestation, Service, Variable
from ostiary.session.normal import JsonValue
from ostiary.session.tee import steps_to
from ostiary.session.yaml_text import write_yaml

_ADVISORY = re.compile(r"INTEL-SA-[0-9]{5}")
_SHORTEST_DIGEST_DIGITS = 32
_TOLERATE, _IGNORE = "tolerate: ", "ignore_advisories: "
_DEMANDS = {
    "singleton_enclaves": "security.singleton_enclaves",
    "must_be_sgx_local": "security.attestation.must_be_sgx_local",
}
_ATTESTATION = "security.attestation"
_MAX_AGE = "security.attestation.max_age"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """operations: the smallest change known that admits the program, if nothing stands in its way.

    obstacles: what no change of this session mends, a sentence each; with any of them the operations do not suffice.
    """

    operations: tuple[Operation, ...] = ()
    obstacles: tuple[str, ...] = ()

    @property
    def suffices(self) -> bool:
        """Whether the program is admitted once the operations are carried out."""
        return not self.obstacles


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What was appraised, and by what.

    written: the session as its author wrote it. service, security: of it, with variables resolved as far as they could
    be. binding, now, singleton_enclaves: as of `examine`.
    """

    claims: Claims
    written: ParsedSession
    service: Service
    security: SecurityAttestation
    binding: bytes
    now: datetime
    singleton_enclaves: bool = False

    def report(self) -> AppraisalReport:
        """Everything that the appraisal looks at."""
        return self._report(self.service, self.security)

    def still_refused(self, service: Service, security: SecurityAttestation) -> tuple[Mismatch, ...]:
        """What would be wrong beside the variants, if the session said this."""
        report = self._report(replace(service, attestation=()), security)
        # The last factor is that there are no variants.
        return tuple(factor for factor in report.general[:-1] if isinstance(factor, Mismatch))

    def _report(self, service: Service, security: SecurityAttestation) -> AppraisalReport:
        return examine(
            self.claims,
            service,
            security,
            binding=self.binding,
            now=self.now,
            singleton_enclaves=self.singleton_enclaves,
        )

    @property
    def index(self) -> int:
        """The place of the service in the session."""
        return next(i for i, one in enumerate(self.written.session.services) if one.name == self.service.name)

    @property
    def form(self) -> dict[str, Any]:
        """The service as it is written, in normal form."""
        services: Any = self.written.normal["services"]
        return dict(services[self.index])


def advise(refused: Refused) -> Advice:
    """The smallest change of the session that admits what was refused.

    Guarantees: without obstacles, the session with all operations carried out admits these claims, in a start whose
    evidence is bound to its connection; without any one of the operations it does not. Each operation says whether it
    is wise, which only a person can decide: the claims are what somebody runs, not what the author meant.
    Does not guarantee that there is no other change of as few operations.
    """
    needs, obstacles = _needs(refused)
    operations = [*_in_security(refused, needs), *_in_service(refused, needs)]
    report = refused.report()
    if not report.variants or all(variant.mismatches for variant in report.variants):
        operation = _variant_operation(refused, report)
        if operation is None:
            obstacles.append(f"service {refused.service.name}: no variant can be written for such evidence here")
        else:
            operations.append(operation)
    return _in_language(refused, operations, obstacles)


# --- what does not depend on the variant


@dataclass(frozen=True, kw_only=True)
class _Need:
    """kind: `tolerate`, `ignore`, `platform`, `max_age` or `drop`."""

    kind: str
    value: str


def _needs(refused: Refused) -> tuple[list[_Need], list[str]]:
    """What has to be added or dropped, none of it in vain, and what stands in the way all the same."""
    mismatches = refused.still_refused(refused.service, refused.security)
    needs = [need for mismatch in mismatches if (need := _need_of(refused, mismatch)) is not None]
    choices = [_without_vain(refused, choice) for choice in (needs, _by_shortcuts(refused, needs))]
    best = min(choices, key=lambda choice: (len(_left(refused, choice)), len(choice)))
    return best, [_obstacle(mismatch) for mismatch in _left(refused, best)]


def _need_of(refused: Refused, mismatch: Mismatch) -> _Need | None:
    factor = mismatch.factor
    if factor.startswith(_TOLERATE) and factor.removeprefix(_TOLERATE) in language.TOLERATE:
        return _Need(kind="tolerate", value=factor.removeprefix(_TOLERATE))
    if factor.startswith(_IGNORE) and _ADVISORY.fullmatch(factor.removeprefix(_IGNORE)):
        return _Need(kind="ignore", value=factor.removeprefix(_IGNORE))
    if factor == "platforms" and refused.claims.qe_id is not None:
        return _Need(kind="platform", value=f"INTEL_QE_ID:{refused.claims.qe_id.hex()}")
    if factor in _DEMANDS:
        return _Need(kind="drop", value=factor)
    if factor == _MAX_AGE and refused.claims.issued is not None:
        days = (refused.now - refused.claims.issued).days + 1
        return _Need(kind="max_age", value=f"{days} days" if days > 1 else "1 day")
    return None


def _by_shortcuts(refused: Refused, needs: list[_Need]) -> list[_Need]:
    """The same, with the advisories that have a shortcut tolerated by it: then a status may need no category."""
    shortcuts = {advisory: shortcut for shortcut, advisory in ADVISORY_OF_SHORTCUT.items()}
    short = [shortcuts[advisory] for advisory in sorted(refused.claims.advisories) if advisory in shortcuts]
    missing = [value for value in short if value not in refused.security.tolerate]
    return [*needs, *(_Need(kind="tolerate", value=value) for value in missing)]


def _without_vain(refused: Refused, needs: list[_Need]) -> list[_Need]:
    """Without every one that changes nothing, the first ones first: shortcuts, which come last, are to stay."""
    least = len(_left(refused, needs))
    kept = list(needs)
    for need in needs:
        rest = [other for other in kept if other != need]
        if len(_left(refused, rest)) == least:
            kept = rest
    return kept


def _left(refused: Refused, needs: Sequence[_Need]) -> tuple[Mismatch, ...]:
    """What would still be wrong."""
    service, security = refused.service, refused.security
    wanted: dict[str, list[str]] = {"tolerate": [], "ignore": [], "platform": [], "max_age": [], "drop": []}
    for need in needs:
        wanted[need.kind].append(need.value)
    platforms = tuple(bytes.fromhex(value.removeprefix("INTEL_QE_ID:")) for value in wanted["platform"])
    service = replace(service, platforms=(*service.platforms, *platforms))
    security = replace(
        security,
        tolerate=security.tolerate | set(wanted["tolerate"]),
        ignore_advisories=security.ignore_advisories | set(wanted["ignore"]),
        max_age=parse_duration(wanted["max_age"][0]) if wanted["max_age"] else security.max_age,
        must_be_sgx_local=False if "must_be_sgx_local" in wanted["drop"] else security.must_be_sgx_local,
    )
    still = replace(
        refused, singleton_enclaves=refused.singleton_enclaves and "singleton_enclaves" not in wanted["drop"]
    )
    return still.still_refused(service, security)


def _obstacle(mismatch: Mismatch) -> str:
    beyond = "" if mismatch.advice else "; no change of the session mends this"
    return f"{mismatch.factor}: found {mismatch.found}; {mismatch.advice}{beyond}"


def _in_security(refused: Refused, needs: Sequence[_Need]) -> Iterator[Operation]:
    for need in needs:
        if need.kind == "tolerate":
            wisdom, why = _of_toleration(need.value, refused.claims)
            yield Operation(action="add", path=f"{_ATTESTATION}.tolerate", value=need.value, wisdom=wisdom, why=why)
        elif need.kind == "max_age":
            yield Operation(
                action="set",
                path=_MAX_AGE,
                value=need.value,
                wisdom=Wisdom.FOR_A_TIME,
                why="until new endorsements are there; what was withdrawn since the old ones is not known of",
            )
        elif need.kind == "drop":
            yield Operation(
                action="remove",
                path=_DEMANDS[need.value],
                wisdom=Wisdom.NEVER,
                why=f"the author asked for {need.value}, and it protects the session; no start here can fulfil it",
            )
    advisories = [need.value for need in needs if need.kind == "ignore"]
    if not advisories:
        return
    path, why = f"{_ATTESTATION}.ignore_advisories", "until the platform is updated; read what it says first"
    if refused.security.ignore_all_advisories:
        # `*` may not stand beside names, and does nothing without debug-mode.
        named: list[JsonValue] = list(advisories)
        yield Operation(action="set", path=path, value=named, wisdom=Wisdom.FOR_A_TIME, why=f"{why}; * has no effect")
        return
    for advisory in advisories:
        yield Operation(action="add", path=path, value=advisory, wisdom=Wisdom.FOR_A_TIME, why=f"{advisory}: {why}")


def _in_service(refused: Refused, needs: Sequence[_Need]) -> Iterator[Operation]:
    for need in needs:
        if need.kind == "platform":
            yield Operation(
                action="add",
                path=f"services[{refused.index}].platforms",
                value=need.value,
                wisdom=Wisdom.AFTER_REVIEW,
                why="only if this machine is one of yours; ask whoever runs it for its quoting enclave's id",
            )


_NEVER = {
    "debug-mode": "the host reads and changes the memory of a debug enclave, so every secret of the session is open",
    "software-platform": "a software platform protects nothing; only a session for development may name it",
}
_FOR_A_TIME = {
    "outdated-tcb": (
        "firmware or microcode is out of date and its flaws are known; tcb: {grace: …} in its place has a last day; "
        "update it, then take this out again"
    ),
    "insecure-configuration": "the platform's settings are unsafe; have them changed, then take this out again",
}
_REVIEW = {
    "software-hardening-needed": "only if the program was compiled with the mitigations that the advisories ask for",
    "maa-managed-tcb": "with mode maa Microsoft's service judges the platform, and whoever uses it has to accept that",
    "hyperthreading": "only if what another thread of the same core can observe does not matter to the program",
}


def _of_toleration(value: str, claims: Claims) -> tuple[Wisdom, str]:
    if value in _NEVER:
        return Wisdom.NEVER, _NEVER[value]
    if value in _FOR_A_TIME:
        advisories = ", ".join(sorted(claims.advisories)) or "none named"
        return Wisdom.FOR_A_TIME, f"{_FOR_A_TIME[value]} (advisories: {advisories})"
    if value in _REVIEW:
        return Wisdom.AFTER_REVIEW, _REVIEW[value]
    return Wisdom.AFTER_REVIEW, f"only if the program is safe with {value}; ask who wrote it"


# --- variants


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """variant: in normal form, what the operation makes of it; of lists only the value that the evidence has."""

    variant: dict[str, Any]
    operation: Operation


def _variant_operation(refused: Refused, report: AppraisalReport) -> Operation | None:
    """The first candidate that the language knows and that admits the claims."""
    for candidate in _candidates(refused, report):
        if _admits(candidate.variant, refused.claims):
            operation = candidate.operation
            if _has_zeros(operation.value):
                return replace(operation, wisdom=Wisdom.NEVER, why=_ZEROS)
            return operation
    return None


_ZEROS = "zeros stand for no program: every enclave in debug mode has them, and any such would be admitted"


def _has_zeros(value: JsonValue) -> bool:
    """Whether a digest of nothing but zeros stands in a value."""
    if isinstance(value, str):
        return len(value) >= _SHORTEST_DIGEST_DIGITS and not value.strip("0")
    if isinstance(value, Mapping):
        return any(_has_zeros(member) for member in value.values())
    return isinstance(value, Sequence) and any(_has_zeros(element) for element in value)


def _admits(variant: dict[str, Any], claims: Claims) -> bool:
    text = write_yaml(
        {
            "version": language.spell(max(language.LEVELS.values())),
            "name": "variant",
            "services": [{"name": "service", "attestation": [variant]}],
        }
    )
    try:
        (parsed,) = parse_session(text).session.services[0].attestation
    except InputError:
        return False
    return not any(isinstance(factor, Mismatch) for factor in judge_variant(claims, parsed))


def _candidates(refused: Refused, report: AppraisalReport) -> Iterator[_Candidate]:
    """The author's nearest variant with one factor widened; another one like it; one by the program's measurement."""
    service = f"services[{refused.index}]"
    if "mrenclaves" in refused.form or _oldest(refused):
        measurement = refused.claims.measurements.get("mrenclave", b"").hex()
        operation = _measurement(f"{service}.mrenclaves", measurement)
        yield _Candidate(variant={"mrenclave": [measurement]}, operation=operation)
        return
    written = _nearest_written(refused, report)
    if written is not None:
        place, form, judged = written
        if len(judged.mismatches) == 1:
            yield from _widened(f"{service}.attestation[{place}]", form, judged)
        yield from _another(service, _with_found(form, judged))
    for variant in _identifying(refused.claims):
        yield from _another(service, variant)


def _identifying(claims: Claims) -> Iterator[dict[str, Any]]:
    """Variants that name the program by what its TEE measured, the closest first."""
    own = {name: [value.hex()] for name, value in claims.measurements.items()}
    if claims.tee == "sgx":
        yield {"mrenclave": own.get("mrenclave", [])}
        return
    # Without these the kernel of a TDX guest and its command line might be any.
    beside = {"rtmr1", "rtmr2"} & own.keys() if claims.tee == "tdx" else set()
    if claims.has_vtpm:
        beside |= next((names for names in language.IDENTIFYING["tpm"] if names <= own.keys()), set())
    for identifying in language.IDENTIFYING[claims.tee]:
        names = identifying | beside
        if names <= own.keys():
            variant: dict[str, Any] = {}
            for name in sorted(names):
                *way, last = _steps(f"{claims.tee}.{name}")
                parent = variant
                for step in way:
                    parent = parent.setdefault(step, {})
                parent[last] = own[name]
            yield variant


def _oldest(refused: Refused) -> bool:
    """A session of a version that has no `attestation` yet."""
    return _level(refused) < language.KEYS["service"]["attestation"]


def _nearest_written(refused: Refused, report: AppraisalReport) -> tuple[int, dict[str, Any], JudgedVariant] | None:
    """Place and form of the nearest variant, if the session says it without a variable, and how it was judged."""
    nearest = report.nearest
    if nearest is None:
        return None
    variant = refused.service.attestation[nearest.index]
    own = refused.written.session.services[refused.index].attestation
    if isinstance(variant, Variable) or variant not in own:
        return None
    place = own.index(variant)
    return place, dict(refused.form["attestation"][place]), nearest


def _widened(path: str, form: dict[str, Any], judged: JudgedVariant) -> Iterator[_Candidate]:
    """One more value of the one factor that failed, if it is a list, or its bound moved to the value found."""
    (mismatch,) = judged.mismatches
    *way, last = _steps(mismatch.factor)
    parent = _at(form, way)
    if parent is None:
        return
    if isinstance(parent.get(last), list) and " " not in mismatch.found:
        operation = _measurement(".".join([path, *way, last]), mismatch.found)
        yield _Candidate(variant=_lean(form, judged), operation=operation)
    # A factor of SNP is named by its bound, one of SGX stands for both.
    is_bound = last.endswith(("_min", "_max"))
    for bound in (last,) if is_bound else (f"{last}_min", f"{last}_max"):
        if isinstance(parent.get(bound), int) and mismatch.found.isdecimal():
            variant = _lean(form, judged)
            _at(variant, way)[bound] = int(mismatch.found)
            bound_path = ".".join([path, *way, bound])
            wisdom, why = _BOUNDS[bound[-len("_min") :]]
            operation = Operation(action="set", path=bound_path, value=int(mismatch.found), wisdom=wisdom, why=why)
            yield _Candidate(variant=variant, operation=operation)


def _lean(form: dict[str, Any], judged: JudgedVariant) -> dict[str, Any]:
    """The variant with one value in each of its lists, which may be long: that of the evidence."""
    variant = copy.deepcopy(form)
    for factor in judged.factors:
        *way, last = _steps(factor.factor)
        parent = _at(variant, way)
        if parent is None or not isinstance(parent.get(last), list):
            continue
        if "events" not in way:
            parent[last] = [factor.found]
        elif isinstance(factor, Mismatch):
            parent[last] += factor.found.split(AND)
    return variant


_BOUNDS = {
    "_min": (Wisdom.NEVER, "versions below were shut out, mostly for their flaws; run a newer one instead"),
    "_max": (Wisdom.AFTER_REVIEW, "only if what lies above, versions or privilege levels, was looked at as well"),
}


def _steps(factor: str) -> list[str]:
    """Where a factor stands in a variant: `signer.mrsigner`, and `tpm.sha256:4` at tpm, pcrs, sha256, 4."""
    *way, last = factor.split(".")
    return [*way, *steps_to(last)]


def _measurement(path: str, value: str) -> Operation:
    return Operation(action="add", path=path, value=value, wisdom=Wisdom.AFTER_REVIEW, why=_ORIGIN)


_ORIGIN = (
    "a measurement is only as good as its origin: build the program yourself, or ask who did, and compare it; that it "
    "is what was started says nothing"
)


def _another(service: str, variant: dict[str, Any] | None) -> Iterator[_Candidate]:
    if variant is not None:
        operation = Operation(
            action="add",
            path=f"{service}.attestation",
            value=variant,
            wisdom=Wisdom.AFTER_REVIEW,
            why=f"it admits another program or version; {_ORIGIN}",
        )
        yield _Candidate(variant=variant, operation=operation)


def _with_found(form: dict[str, Any], judged: JudgedVariant) -> dict[str, Any] | None:
    """The same factors, with what was found in the places of what did not hold."""
    variant = _lean(form, judged)
    for mismatch in judged.mismatches:
        *way, last = _steps(mismatch.factor)
        parent = _at(variant, way)
        if parent is None:
            return None
        for bound in (f"{last}_min", f"{last}_max"):
            parent.pop(bound, None)
        if not isinstance(parent.get(last), list):
            is_number = mismatch.found.isdecimal() and not isinstance(parent.get(last), str)
            parent[last] = int(mismatch.found) if is_number else mismatch.found
    return variant


def _at(node: Any, way: Sequence[str]) -> Any:
    """The mapping that stands there; None if there is none."""
    for step in way:
        if not isinstance(node, dict):
            return None
        node = node.get(step)
    return node if isinstance(node, dict) else None


# --- the text


def _level(refused: Refused) -> int:
    return language.LEVELS.get(refused.written.session.version, language.V0_1)


def _in_language(refused: Refused, operations: list[Operation], obstacles: list[str]) -> Advice:
    """What can be written into this session: its version must know it, and no variable may stand in the way."""
    normal: Any = refused.written.normal
    of_security = [operation for operation in operations if operation.path.startswith("security.")]
    section = normal.get("security")
    inner = section.get("attestation") if isinstance(section, dict) else section
    for place in (section, inner):
        if of_security and isinstance(place, str):
            obstacles.append(f"security is what {place} stands for; change it there: {_listed(of_security)}")
            operations = [operation for operation in operations if operation not in of_security]
            break
    needed = max((_level_of(operation) for operation in operations), default=language.V0_1)
    if needed > _level(refused):
        spelt = language.spell(needed)
        if _level(refused) < language.V0_3:
            obstacles.append(f"the session is of version {refused.written.session.version}; rewrite it for {spelt}")
        else:
            operations.append(
                Operation(
                    action="set",
                    path="version",
                    value=spelt,
                    wisdom=Wisdom.AFTER_REVIEW,
                    why=f"the other changes need version {spelt} of the language",
                )
            )
    return Advice(operations=tuple(operations), obstacles=tuple(dict.fromkeys(obstacles)))


def _listed(operations: Sequence[Operation]) -> str:
    return ", ".join(f"{operation.action} {operation.value or operation.path}" for operation in operations)


def _level_of(operation: Operation) -> int:
    if operation.path.startswith(_ATTESTATION):
        key = operation.path.removeprefix(f"{_ATTESTATION}.")
        value = language.TOLERATE.get(str(operation.value), language.V0_1) if key == "tolerate" else language.V0_1
        return max(language.KEYS["session"]["security"], value)
    if isinstance(operation.value, dict):
        return _level_of_variant(operation.value)
    return language.V0_1


def _level_of_variant(variant: dict[str, Any]) -> int:
    keys = language.KEYS["attestation variant"]
    return max([language.KEYS["service"]["attestation"], *(keys.get(key, language.V0_1) for key in variant)])
