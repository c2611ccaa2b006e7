"""Configuration variables: sections of a session with the values of secrets in their places. Pure.

What a secret says is read by the parser of sessions, as if it stood in the text in that place, so that nothing passes
here that would not pass there. What cannot be had, or does not fit, stays a `Variable`: whoever decides on the section
must take one for something that is not fulfilled, and never for something that is not there.

Source: session language, "Where they work" (8.2), and what sections 6, 11 and 12 say of variables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ostiary.errors import InputError, ReleaseRefusedError
from ostiary.session import JsonValue, language, parse_session
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    NoneSubject,
    PolicyBoard,
    RuleSubject,
    Security,
    SecurityAttestation,
    Service,
    Session,
    Signer,
    SignerSubject,
    Subject,
    TcbRules,
    TeeFactors,
    TeeVariant,
    Variable,
    Variant,
)
from ostiary.session.normal import count_nodes
from ostiary.session.placeholder import Placeholder
from ostiary.session.tee import measurement_bytes, steps_to

Lookup = Callable[[Placeholder], JsonValue]
"""What a placeholder stands for; raises ReleaseRefusedError if nothing can be had."""

_Thing = TypeVar("_Thing")
_Place = Callable[[JsonValue], Mapping[str, JsonValue]]
"""A value to the members of a session that has it in the place where it would stand, and nothing else of weight."""

MAX_READINGS = 256
"""How many values, and entries of them, are read for one section; each costs about a millisecond."""

MAX_READ_NODES = 5_000
"""Nodes of all values that are read for one section: whoever asks for a start, unknown as yet, causes the reading."""

_DIGEST = "0" * 64
_MAA_URL = "https://tenant.region.attest.azure.net"
_MAX_PORTABLE_DIGITS = 5


class Variables:
    """The variables of one session. failures: a sentence for each that could not be resolved; none quotes a value."""

    def __init__(self, session: Session, lookup: Lookup) -> None:
        self._version = session.version
        self._lookup = lookup
        self._readings = 0
        self._nodes = 0
        self.failures: list[str] = []

    def service(self, service: Service) -> Service:
        """The service with attestation, platforms and one-time password secret resolved; the rest as it is."""
        variants: tuple[Variant | TeeVariant | Variable, ...] = self._each(service.attestation, self._variants)
        return replace(
            service,
            attestation=tuple(part if isinstance(part, Variable) else self._variant(part) for part in variants),
            platforms=self._each(service.platforms, self._platforms),
            one_time_password_shared_secret=self._password_secret(service.one_time_password_shared_secret),
        )

    def security(self, security: Security | Variable) -> Security | Variable:
        """The section, with every part of it that could be resolved."""
        if isinstance(security, Variable):
            found = self._read(security, lambda value: {"security": value})
            return security if found is None else found.security
        return replace(
            security,
            singleton_enclaves=self._one(
                security.singleton_enclaves, _security("singleton_enclaves"), lambda s: s.singleton_enclaves
            ),
            service_access_token=self._one(
                security.service_access_token, _security("service_access_token"), lambda s: s.service_access_token
            ),
            attestation=self._attestation(security.attestation),
        )

    def access_policy(self, policy: AccessPolicy | Variable) -> AccessPolicy | Variable:
        """The policy. An entry that does not fit is left out, and one that would widen a list with `ANY` as well.

        CREATOR, wherever it comes from, is the creator of the session that has the variable.
        """
        if isinstance(policy, Variable):
            return self._whole_policy(policy)
        create, listing = policy.create_sessions, policy.list_sessions
        return AccessPolicy(
            read=self._subjects("read", policy.read),
            update=self._subjects("update", policy.update),
            create_sessions=None if create is None else self._subjects("create_sessions", create),
            list_sessions=None if listing is None else self._subjects("list_sessions", listing),
        )

    def policy_board(self, board: PolicyBoard) -> PolicyBoard:
        """The board with its members' keys. A member whose key cannot be had keeps its variable, and is nobody.

        Two variables may turn out to be one key: whoever counts must count keys.
        """
        return replace(board, members=tuple(replace(one, signer=self._member_key(one.signer)) for one in board.members))

    def _member_key(self, signer: SignerSubject | Variable) -> SignerSubject | Variable:
        if not isinstance(signer, Variable):
            return signer
        found = self._read(
            signer, lambda value: {"policy_board": {"tolerated_faults": 0, "members": [{"name": "x", "signer": value}]}}
        )
        return signer if found is None or found.policy_board is None else found.policy_board.members[0].signer

    # --- attestation of a service

    def _variants(self, variable: Variable) -> tuple[Variant | TeeVariant | Variable, ...] | None:
        found = self._read(variable, lambda value: _service(attestation=value))
        return None if found is None else found.services[0].attestation

    def _variant(self, variant: Variant | TeeVariant) -> Variant | TeeVariant:
        if isinstance(variant, TeeVariant):
            return replace(variant, factors=self._factors(variant.tee, variant.factors))
        return replace(
            variant,
            mrenclave=self._each(variant.mrenclave, self._measurements),
            signer=self._signer(variant.signer),
        )

    def _factors(self, tee: str, factors: TeeFactors | Variable) -> TeeFactors | Variable:
        if isinstance(factors, Variable):
            found = self._read(factors, lambda value: _service(attestation={tee: value}))
            return factors if found is None else _only_factors(found)
        return replace(
            factors,
            measurements=tuple(
                (name, self._each(values, lambda variable, name=name: self._of_tee(variable, tee, name)))  # type: ignore[misc]
                for name, values in factors.measurements
            ),
            guest_svn_min=self._bound(factors.guest_svn_min, "guest_svn_min"),
            vmpl_max=self._bound(factors.vmpl_max, "vmpl_max"),
        )

    def _of_tee(self, variable: Variable, tee: str, name: str) -> tuple[bytes | Variable, ...] | None:
        """The values of one measurement."""
        found = self._read(variable, lambda value: _service(attestation={tee: _with_identity(tee, name, value)}))
        return None if found is None else dict(_only_factors(found).measurements)[name]

    def _bound(self, member: int | Variable | None, name: str) -> int | Variable | None:
        """Of SNP."""
        if not isinstance(member, Variable):
            return member
        found = self._read(
            member, lambda value: _service(attestation={"snp": _with_identity("snp", name, _number(value))})
        )
        return member if found is None else getattr(_only_factors(found), name)

    def _measurements(self, variable: Variable) -> tuple[bytes | Variable, ...] | None:
        found = self._read(variable, lambda value: _service(attestation={"mrenclave": value}))
        return None if found is None else _only_variant(found).mrenclave

    def _signer(self, signer: Signer | Variable | None) -> Signer | Variable | None:
        if isinstance(signer, Variable):
            found = self._read(signer, lambda value: _service(attestation={"signer": value}))
            return signer if found is None else _only_variant(found).signer
        if signer is None:
            return None
        return replace(
            signer,
            mrsigner=self._of_signer(signer.mrsigner, "mrsigner"),
            isvprodid=self._of_signer(signer.isvprodid, "isvprodid"),
            isvsvn_min=self._of_signer(signer.isvsvn_min, "isvsvn_min"),
            isvsvn_max=self._of_signer(signer.isvsvn_max, "isvsvn_max"),
        )

    def _of_signer(self, member: _Thing | Variable, name: str) -> _Thing | Variable:
        if not isinstance(member, Variable):
            return member
        base: dict[str, JsonValue] = {"mrsigner": _DIGEST, "isvprodid": 0}
        found = self._read(
            member,
            lambda value: _service(attestation={"signer": {**base, name: _number(value)}}),
        )
        return member if found is None else getattr(_only_variant(found).signer, name)

    def _platforms(self, variable: Variable) -> tuple[bytes | Variable, ...] | None:
        found = self._read(
            variable, lambda value: _service(attestation={"mrenclave": _DIGEST}, platforms=_as_list(value))
        )
        return None if found is None else found.services[0].platforms

    # --- security

    def _attestation(self, attestation: SecurityAttestation | Variable) -> SecurityAttestation | Variable:
        if isinstance(attestation, Variable):
            found = self._read(attestation, lambda value: {"security": {"attestation": value}})
            return attestation if found is None else found.attestation
        resolved = replace(
            attestation,
            mode=self._one(attestation.mode, _attestation("mode", url=_MAA_URL), lambda s: _section(s).mode),
            tolerate=frozenset(self._each(sorted(attestation.tolerate, key=_shown), self._tolerances)),
            url=self._one(attestation.url, _attestation("url", mode="maa"), lambda s: _section(s).url),
            certificates=self._each(attestation.certificates, self._certificates),
            must_be_sgx_local=self._one(
                attestation.must_be_sgx_local,
                _attestation("must_be_sgx_local", tolerate=["local-attestation-trust-cas-tcb"]),
                lambda s: _section(s).must_be_sgx_local,
            ),
            one_time_password_shared_secret=self._password_secret(attestation.one_time_password_shared_secret),
            tcb=self._tcb(attestation.tcb),
            max_age=self._one(attestation.max_age, _attestation("max_age"), lambda s: _section(s).max_age),
        )
        return self._with_advisories(resolved)

    def _tcb(self, tcb: TcbRules | Variable | None) -> TcbRules | Variable | None:
        if isinstance(tcb, TcbRules) and isinstance(tcb.grace, Variable):
            found = self._read_attestation(tcb.grace, lambda value: {"tcb": {"grace": value}})
            return tcb if found is None else found.tcb
        return self._one(tcb, _attestation("tcb"), lambda s: _section(s).tcb)

    def _password_secret(self, secret: bytes | Variable | None) -> bytes | Variable | None:
        """Of the session or of a service: both are read alike."""
        return self._one(
            secret,
            _attestation("one_time_password_shared_secret"),
            lambda s: _section(s).one_time_password_shared_secret,
        )

    def _tolerances(self, variable: Variable) -> tuple[str | Variable, ...] | None:
        found = self._read_attestation(variable, lambda value: {"tolerate": _as_list(value)})
        return None if found is None else tuple(found.tolerate)

    def _certificates(self, variable: Variable) -> tuple[str | Variable, ...] | None:
        found = self._read_attestation(
            variable, lambda value: {"mode": "maa", "url": _MAA_URL, "certificates": _as_list(value)}
        )
        return None if found is None else found.certificates

    def _with_advisories(self, attestation: SecurityAttestation) -> SecurityAttestation:
        """`*` counts only where it is all that the list has."""
        written = attestation.ignore_advisories
        advisories: set[str | Variable] = set()
        for advisory in sorted(written, key=_shown):
            found = None
            if isinstance(advisory, Variable):
                found = self._read_attestation(advisory, lambda value: {"ignore_advisories": value})
            if found is None:
                advisories.add(advisory)
            elif not found.ignore_all_advisories:
                advisories |= found.ignore_advisories
            elif len(written) == 1:
                return replace(attestation, ignore_advisories=frozenset(), ignore_all_advisories=True)
            else:
                advisories.add(advisory)
                self.failures.append(f"{_shown(advisory)}: * must be the only entry; remove it or the others")
        return replace(attestation, ignore_advisories=frozenset(advisories))

    def _read_attestation(
        self, variable: Variable, place: Callable[[JsonValue], Mapping[str, JsonValue]]
    ) -> SecurityAttestation | None:
        found = self._read(variable, lambda value: {"security": {"attestation": place(value)}})
        return None if found is None or isinstance(found.attestation, Variable) else found.attestation

    # --- access policy

    def _whole_policy(self, variable: Variable) -> AccessPolicy | Variable:
        def without_unfit(value: JsonValue) -> Mapping[str, JsonValue]:
            if isinstance(value, Mapping):
                value = {
                    name: self._fitting(name, _as_list(entries), variable) or "NONE" for name, entries in value.items()
                }
            return {"access_policy": value}

        found = self._read(variable, without_unfit)
        return variable if found is None else found.access_policy

    def _subjects(self, operation: str, subjects: tuple[Subject, ...]) -> tuple[Subject, ...]:
        resolved: list[Subject] = []
        for subject in subjects:
            if isinstance(subject, Variable):
                resolved += self._entries(operation, subject)
            else:
                resolved.append(self._rule(subject) if isinstance(subject, RuleSubject) else subject)
        if len(resolved) > 1:
            resolved = [subject for subject in resolved if not isinstance(subject, AnySubject | NoneSubject)]
        return tuple(resolved)

    def _entries(self, operation: str, variable: Variable) -> tuple[Subject, ...]:
        found = self._read(
            variable,
            lambda value: {"access_policy": {operation: self._fitting(operation, _as_list(value), variable)}},
        )
        if found is None or isinstance(found.access_policy, Variable):
            return (variable,)
        entries: tuple[Subject, ...] = getattr(found.access_policy, operation)
        return entries

    def _fitting(self, operation: str, entries: Iterable[JsonValue], variable: Variable) -> list[JsonValue]:
        fitting = []
        for entry in entries:
            if self._parse({"access_policy": {operation: [entry]}}) is None:
                self.failures.append(f"{_shown(variable)}: an entry of its value admits nobody to {operation}")
            else:
                fitting.append(entry)
        return fitting

    def _rule(self, rule: RuleSubject) -> RuleSubject:
        """A rule that needs all of its entries needs all of those that were put in as well."""
        parts: list[Subject] = []
        for part in rule.subjects:
            if isinstance(part, Variable):
                parts += self._parts(part)
            else:
                parts.append(self._rule(part) if isinstance(part, RuleSubject) else part)
        needed = len(parts) if rule.needed == len(rule.subjects) else rule.needed
        return RuleSubject(needed=needed, subjects=tuple(parts))

    def _parts(self, variable: Variable) -> tuple[Subject, ...]:
        found = self._read(variable, lambda value: {"access_policy": {"update": [{"require-all": _as_list(value)}]}})
        if found is None or isinstance(found.access_policy, Variable):
            return (variable,)
        (rule,) = found.access_policy.update
        return rule.subjects if isinstance(rule, RuleSubject) else (variable,)

    # --- one variable

    def _one(
        self, part: _Thing | Variable, place: _Place, pick: Callable[[Security], _Thing | Variable]
    ) -> _Thing | Variable:
        if not isinstance(part, Variable):
            return part
        found = self._read(part, place)
        return part if found is None or isinstance(found.security, Variable) else pick(found.security)

    def _each(
        self,
        parts: Sequence[_Thing | Variable],
        resolve: Callable[[Variable], tuple[_Thing | Variable, ...] | None],
    ) -> tuple[_Thing | Variable, ...]:
        """A list, with what variables stand for spliced in."""
        resolved: list[_Thing | Variable] = []
        for part in parts:
            found = resolve(part) if isinstance(part, Variable) else None
            resolved += (part,) if found is None else found
        return tuple(resolved)

    def _read(self, variable: Variable, place: _Place) -> Session | None:
        """A session with the variable's value in its place, None if there is none or it does not fit."""
        try:
            value = self._lookup(variable.placeholder)
        except ReleaseRefusedError as error:
            self.failures.append(f"{_shown(variable)}: {error}")
            return None
        # In a text, null means that a key is left out and has its default; a variable says that something is there.
        found = None if value is None else self._parse(place(value))
        if found is None:
            # The parser's own words would quote the value.
            if self._readings > MAX_READINGS:
                why = f"there are over {MAX_READINGS} values and entries to be read; put them into one fragment"
            elif self._nodes > MAX_READ_NODES:
                why = f"the values to be read have over {MAX_READ_NODES} nodes together; write the section out"
            else:
                why = "its value is not what the language takes in this place"
            self.failures.append(f"{_shown(variable)}: {why}")
        return found

    def _parse(self, members: Mapping[str, JsonValue]) -> Session | None:
        self._readings += 1
        if self._readings > MAX_READINGS or self._nodes > MAX_READ_NODES:
            return None
        self._nodes += count_nodes(members)
        if self._nodes > MAX_READ_NODES:
            return None
        text = json.dumps({"version": self._version, "name": "x", **members}, ensure_ascii=False)
        try:
            return parse_session(text).session
        except InputError:
            return None


def _service(**members: JsonValue) -> Mapping[str, JsonValue]:
    return {"services": [{"name": "x", **members}]}


def _security(name: str) -> _Place:
    return lambda value: {"security": {name: value}}


def _attestation(name: str, **others: JsonValue) -> _Place:
    return lambda value: {"security": {"attestation": {**others, name: value}}}


def _section(security: Security) -> SecurityAttestation:
    """The attestation of a section that was read from text without variables."""
    if isinstance(security.attestation, Variable):
        raise ReleaseRefusedError("a variable in a variable")
    return security.attestation


def _only_variant(session: Session) -> Variant:
    (variant,) = session.services[0].attestation
    if not isinstance(variant, Variant):
        raise ReleaseRefusedError("a variable in a variable")
    return variant


def _only_factors(session: Session) -> TeeFactors:
    (variant,) = session.services[0].attestation
    if not isinstance(variant, TeeVariant) or isinstance(variant.factors, Variable):
        raise ReleaseRefusedError("a variable in a variable")
    return variant.factors


def _with_identity(tee: str, name: str, value: JsonValue) -> JsonValue:
    """The factors of a TEE with `value` under `name`, and one beside it by which they say whom they admit."""
    (identity,) = language.IDENTIFYING[tee][0]
    given: dict[str, JsonValue] = {identity: "ff" * measurement_bytes(tee, identity)}
    given[name] = value
    nested: dict[str, JsonValue] = {}
    for factor, digest in given.items():
        *way, last = steps_to(factor)
        parent: dict[str, JsonValue] = nested
        for step in way:
            parent = parent.setdefault(step, {})  # type: ignore[assignment]
        parent[last] = digest
    return nested


def _as_list(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _number(value: JsonValue) -> JsonValue:
    """Numbers may come as decimal text, since most secrets are text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MAX_PORTABLE_DIGITS:
        return int(value)
    return value


def _shown(part: object) -> str:
    return str(part.placeholder) if isinstance(part, Variable) else str(part)
