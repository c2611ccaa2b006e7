"""What a change of a session means: two sessions to sentences, the worst first. Pure.

Guarantees: two sessions that allow, give and demand the same have no differences, whatever their predecessors and the
order of what has none, except that other words for what a policy board decides are told; any other change has at least
one, a member that no rule here knows included. What cannot be compared, as it stands behind a configuration variable or
in a nested rule, counts as widening when it is new; so do the lists of variants of a session that would take over
MAX_SPLIT values to tell one by one. So the differences are no more than the session has parts, and whoever decides
about a session that a stranger wrote has them in time.
What is added is told with all that it holds, as it may have been there in an earlier version; so is an image that no
service used. Measurements, hashes, commands and names are told whole. No sentence holds the value of a secret, of an
environment variable or of a file.
Does not guarantee: that two measurements are not the same program, or that a narrower session still works.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from math import prod
from typing import Protocol, TypeVar

from ostiary.session.base58 import encode_key_hash
from ostiary.session.duration import show_duration
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    AnySubject,
    BoardMember,
    CertificateHashSubject,
    CreatorSubject,
    HostArgument,
    HostVariable,
    Image,
    ImageVolume,
    ImportedSecret,
    ImportedVolume,
    InjectionFile,
    KeySubject,
    KeyVault,
    NamespaceTarget,
    NoneSubject,
    PolicyBoard,
    PublicKeySecret,
    RemoteCas,
    RuleSubject,
    Secret,
    Security,
    SecurityAttestation,
    Service,
    Session,
    SessionTarget,
    Signer,
    SignerSubject,
    Subject,
    TcbRules,
    TeeFactors,
    TeeVariant,
    Variable,
    Variant,
    Volume,
    VolumeExport,
    variables_in,
)
from ostiary.session.pem import certificate_key_hash
from ostiary.session.placeholder import Template
from ostiary.session.tee import EVENTS

_MAX_SVN = 0xFFFF
_MAX_VMPL = 3
MAX_SPLIT = 2000
"""Values in the ways to be admitted that the lists of a session's variants are split into; above, lists are compared as
a whole."""
_WORD = re.compile(r"[A-Za-z0-9._~-]+")
_STEP = re.compile(r"[A-Za-z0-9._~:/@+-]+")
_BLANKS = re.compile(r" {2,}")
_TO_QUOTE = re.compile(r"[\s'\"\\]|^$")


class Effect(IntEnum):
    """What a difference does to those who rely on the session; the smallest is the worst."""

    WIDER = 0
    CHANGED = 1
    NARROWER = 2

    @property
    def verb(self) -> str:
        return {Effect.WIDER: "widens", Effect.CHANGED: "changes", Effect.NARROWER: "narrows"}[self]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One change. path: as in `services[web].attestation`, elements by name, a name of other than plain characters as
    a JSON string. meaning: one sentence.
    """

    effect: Effect
    path: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.effect.name.lower()}: {self.meaning}"


def differences(before: Session, after: Session) -> tuple[Difference, ...]:
    """What `after` means beside `before`, by effect, then in the order of the session language."""
    found = [
        *_services(before.services, after.services, whole=max(_values(before), _values(after)) > MAX_SPLIT),
        *_images(before, after),
        *_secrets(before.secrets, after.secrets),
        *_volumes(before.volumes, after.volumes),
        *_access(before, after),
        *_board(before, after),
        *_security(before.security, after.security),
        *_creator(before.creator, after.creator),
        *_behind(before, after),
        *_others(before, after, _SESSION_HANDLED, "the session", ""),
    ]
    return tuple(sorted(found, key=lambda difference: difference.effect))


_SESSION_HANDLED = frozenset(
    {"predecessor", "services", "images", "secrets", "volumes", "access_policy", "policy_board", "security", "creator"}
)


# --- services --------------------------------------------------------------------------------------------------------


def _services(before: Sequence[Service], after: Sequence[Service], *, whole: bool) -> Iterator[Difference]:
    """whole: lists of variants are not split into what each of their values admits."""
    old, new = _by_name(before), _by_name(after)
    for name in _added(old, new):
        yield _widens(f"services[{name}]", f"adds service {name}, {_admitted(new[name], whole=whole)}")
        yield from _behaviour(Service(name=name), new[name])
    for name in _added(new, old):
        yield _narrows(f"services[{name}]", f"removes service {name}")
    for name in _kept(old, new):
        yield from _service(old[name], new[name], whole=whole)


def _admitted(service: Service, *, whole: bool) -> str:
    admitted = [*_admissions(service.attestation), *_guests(service.attestation, whole=whole)]
    if not admitted:
        return "which asks for no evidence by itself"
    return f"which admits {_count(len(admitted), 'program')}: {'; '.join(str(one) for one in admitted)}"


def _service(before: Service, after: Service, *, whole: bool) -> Iterator[Difference]:
    yield from _attestation(before, after, whole=whole)
    yield from _behaviour(before, after)


def _behaviour(before: Service, after: Service) -> Iterator[Difference]:
    """All but the attestation."""
    what, path = f"service {after.name}", f"services[{after.name}]"
    if before.command != after.command:
        old, new = _command(before), _command(after)
        yield _changes(f"{path}.command", f"changes the command of {what}: {old} becomes {new}")
    yield from _environment(before, after)
    yield from _restriction(before.platforms, after.platforms, f"{path}.platforms", f"the platforms of {what}")
    yield from _guard(
        before.one_time_password_shared_secret,
        after.one_time_password_shared_secret,
        f"{path}.one_time_password_shared_secret",
        f"one-time passwords of {what}",
    )
    main = f"the main file system of {what}"
    yield from _rollback(before.fspf_update_policy, after.fspf_update_policy, f"{path}.fspf_update_policy", main)
    if before.fspf_path is not None and after.fspf_path is not None:
        yield from _recorded(before, after, path, main)
    handled = frozenset({
        "attestation", "command", "environment", "platforms", "one_time_password_shared_secret", "fspf_update_policy",
    })  # fmt: skip
    yield from _others(before, after, handled, what, path)


def _command(service: Service) -> str:
    """Words as a shell would need them, so that no two commands look the same."""
    return _quote(" ".join(_command_word(word) for word in service.command)) if service.command else "nothing"


def _command_word(word: Template | HostArgument) -> str:
    if isinstance(word, HostArgument):
        return f"@@{word.position}"
    text = str(word)
    return shlex.quote(text) if _TO_QUOTE.search(text) else text


def _environment(before: Service, after: Service) -> Iterator[Difference]:
    old, new = dict(before.environment), dict(after.environment)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            verb = "changes" if name in old and name in new else "adds" if name in new else "removes"
            value = new.get(name)
            host = f", to what the host says in {_name(value.name)}" if isinstance(value, HostVariable) else ""
            path = f"services[{after.name}].environment.{_step(name)}"
            yield _changes(path, f"{verb} the environment variable {_name(name)} of service {after.name}{host}")


@dataclass(frozen=True, kw_only=True)
class _Admission:
    """One way to be admitted: this measurement (None: any) with this signer (None: any)."""

    mrenclave: bytes | Variable | None
    signer: Signer | Variable | None

    def __str__(self) -> str:
        parts = []
        if self.mrenclave is not None:
            parts.append(f"measurement {_shown(self.mrenclave)}")
        if self.signer is not None:
            parts.append(_signer(self.signer))
        return " of ".join(parts)

    @property
    def kind(self) -> str:
        return "measurement" if self.mrenclave is not None else "signer"


@dataclass(frozen=True, kw_only=True)
class _Guest:
    """One way to be admitted on another TEE than SGX. program: each measurement with the values that it may have."""

    tee: str
    program: tuple[tuple[str, frozenset[bytes | Variable]], ...] | Variable
    guest_svn_min: int | Variable | None = None
    vmpl_max: int | Variable | None = None

    def __str__(self) -> str:
        if isinstance(self.program, Variable):
            return f"{self.tee} {_shown(self.program)}"
        parts = [f"{name} {' or '.join(sorted(_shown(value) for value in values))}" for name, values in self.program]
        for name, bound in (("guest_svn_min", self.guest_svn_min), ("vmpl_max", self.vmpl_max)):
            parts += [] if bound is None else [f"{name} {_shown(bound)}"]
        return f"{self.tee} {', '.join(parts)}"

    def within(self, other: _Guest) -> bool:
        """Whether the bounds of `other`, of the same program, admit all that these admit."""
        own = (self.guest_svn_min or 0, _MAX_VMPL if self.vmpl_max is None else self.vmpl_max)
        least, most = other.guest_svn_min or 0, _MAX_VMPL if other.vmpl_max is None else other.vmpl_max
        if any(isinstance(bound, Variable) for bound in (*own, least, most)):
            return False
        return own[0] >= least and own[1] <= most  # type: ignore[operator]


def _guests(variants: Iterable[Variant | TeeVariant | Variable], *, whole: bool) -> dict[_Guest, None]:
    """What the variants for other TEEs than SGX admit, each list of values split unless `whole`."""
    guests: dict[_Guest, None] = {}
    for variant in variants:
        if isinstance(variant, TeeVariant):
            guests.update(dict.fromkeys(_split(variant.tee, variant.factors, whole=whole)))
    return guests


def _values(session: Session) -> int:
    """How many values tell what the variants of a session for other TEEs than SGX admit, each list of values split."""
    variants = (variant for service in session.services for variant in service.attestation)
    return sum(
        _split_values(_choices(variant.factors))
        for variant in variants
        if isinstance(variant, TeeVariant) and isinstance(variant.factors, TeeFactors)
    )


def _split_values(choices: list[list[frozenset[bytes | Variable]]]) -> int:
    return prod(map(len, choices)) * sum(len(each[0]) for each in choices if each)


def _choices(factors: TeeFactors) -> list[list[frozenset[bytes | Variable]]]:
    # The events of a PCR may be any of the digests together, so that such a list is no choice of one.
    return [
        [frozenset(values)] if name.startswith(EVENTS) else [frozenset({value}) for value in dict.fromkeys(values)]
        for name, values in factors.measurements
    ]


def _split(tee: str, factors: TeeFactors | Variable, *, whole: bool) -> Iterator[_Guest]:
    if isinstance(factors, Variable):
        yield _Guest(tee=tee, program=factors)
        return
    names = [name for name, _ in factors.measurements]
    each = [tuple(frozenset(values) for _, values in factors.measurements)]
    for program in each if whole else product(*_choices(factors)):
        yield _Guest(
            tee=tee,
            program=tuple(zip(names, program, strict=True)),
            guest_svn_min=factors.guest_svn_min,
            vmpl_max=factors.vmpl_max,
        )


def _guest_changes(
    old: Mapping[_Guest, None], new: Mapping[_Guest, None], what: str, path: str
) -> Iterator[Difference]:
    removed: dict[tuple[object, ...], list[_Guest]] = {}
    for guest in _added(new, old):
        removed.setdefault((guest.tee, guest.program), []).append(guest)
    for guest in _added(old, new):
        same = removed.get((guest.tee, guest.program))
        if not same:
            yield _widens(path, f"admits to {what}: {guest}")
        else:
            before = same.pop(0)
            make = _narrows if guest.within(before) else _widens
            yield make(path, f"changes the bounds of what {what} admits: {before} becomes {guest}")
    for guest in (guest for same in removed.values() for guest in same):
        yield _narrows(path, f"does not admit to {what} any more: {guest}")


def _admissions(variants: Iterable[Variant | TeeVariant | Variable]) -> dict[_Admission, None]:
    """All pairs that any variant for SGX admits, without repetitions; a variable may be any variant."""
    pairs: dict[_Admission, None] = {}
    for variant in variants:
        if isinstance(variant, TeeVariant):
            continue
        if isinstance(variant, Variable):
            pairs[_Admission(mrenclave=variant, signer=None)] = None
            continue
        for mrenclave in variant.mrenclave or (None,):
            pairs[_Admission(mrenclave=mrenclave, signer=variant.signer)] = None
    return pairs


def _attestation(before: Service, after: Service, *, whole: bool) -> Iterator[Difference]:
    what, path = f"service {after.name}", f"services[{after.name}].attestation"
    old, new = _admissions(before.attestation), _admissions(after.attestation)
    if bool(before.attestation) != bool(after.attestation):
        if before.attestation:
            yield _widens(path, f"asks for no evidence of {what} any more")
        else:
            shown = _admitted(after, whole=whole).removeprefix("which ")
            yield _narrows(path, f"asks for evidence of {what}, which needed none, and {shown}")
        return
    added, removed = _added(old, new), _added(new, old)
    programs = {_program(one): one for one in removed}
    moved = {one: programs[_program(one)] for one in added if _program(one) in programs}
    for after_it, before_it in moved.items():
        yield _versions(before_it, after_it, what, path)
    gone = frozenset(moved.values())
    added, removed = [one for one in added if one not in moved], [one for one in removed if one not in gone]
    yield from _counted(added, Effect.WIDER, "adds", "to", what, path)
    yield from _counted(removed, Effect.NARROWER, "removes", "from", what, path)
    old_guests, new_guests = (_guests(one.attestation, whole=whole) for one in (before, after))
    yield from _guest_changes(old_guests, new_guests, what, path)


def _counted(
    found: list[_Admission], effect: Effect, verb: str, preposition: str, what: str, path: str
) -> Iterator[Difference]:
    for kind in ("measurement", "signer"):
        some = [admission for admission in found if admission.kind == kind]
        if some:
            named = ", ".join(str(admission).removeprefix(f"{kind} ") for admission in some)
            count = _count(len(some), kind)
            yield Difference(effect=effect, path=path, meaning=f"{verb} {count} {preposition} {what}: {named}")


def _program(admission: _Admission) -> tuple[object, ...]:
    """What stays the same when nothing but the security versions of a signer's program change."""
    signer = admission.signer
    return (admission.mrenclave, signer.mrsigner, signer.isvprodid) if isinstance(signer, Signer) else (admission,)


def _versions(before: _Admission, after: _Admission, what: str, path: str) -> Difference:
    effect = Effect.WIDER
    if isinstance(before.signer, Signer) and isinstance(after.signer, Signer):
        old, new = _range(before.signer), _range(after.signer)
        if old is not None and new is not None and old[0] <= new[0] and new[1] <= old[1]:
            effect = Effect.NARROWER
    verb = "admits other" if effect is Effect.WIDER else "admits fewer"
    return Difference(
        effect=effect, path=path, meaning=f"{verb} security versions for {what}: {before} becomes {after}"
    )


def _range(signer: Signer) -> tuple[int, int] | None:
    least = 0 if signer.isvsvn_min is None else signer.isvsvn_min
    most = _MAX_SVN if signer.isvsvn_max is None else signer.isvsvn_max
    return None if isinstance(least, Variable) or isinstance(most, Variable) else (least, most)


def _signer(signer: Signer | Variable) -> str:
    if isinstance(signer, Variable):
        return f"signer {_shown(signer)}"
    least = "" if signer.isvsvn_min is None else f" from version {_shown(signer.isvsvn_min)}"
    most = "" if signer.isvsvn_max is None else f" up to version {_shown(signer.isvsvn_max)}"
    return f"signer {_shown(signer.mrsigner)} product {_shown(signer.isvprodid)}{least}{most}"


# --- images and volumes ----------------------------------------------------------------------------------------------


def image_path(name: str) -> str:
    """The path of an image; those of its parts begin with it and a point."""
    return f"images[{_step(name)}]"


def _images(before: Session, after: Session) -> Iterator[Difference]:
    old, new = _by_name(before.images), _by_name(after.images)
    was_used, is_used = ({service.image_name for service in session.services} for session in (before, after))
    for name in _added(old, new):
        yield _changes(image_path(name), f"adds image {_name(name)}")
        yield from _image(Image(name=name), new[name])
    for name in _added(new, old):
        yield _changes(image_path(name), f"removes image {_name(name)}")
    for name in _kept(old, new):
        if name in is_used and name not in was_used:
            # What nobody used nobody had reason to look at.
            yield _changes(image_path(name), f"uses image {_name(name)}, which no service used before")
            yield from _image(Image(name=name), new[name])
        else:
            yield from _image(old[name], new[name])


def _image(before: Image, after: Image) -> Iterator[Difference]:
    what, path = f"image {_name(after.name)}", image_path(after.name)
    yield from _files(before.injection_files, after.injection_files, what, f"{path}.injection_files")
    yield from _mounts(before.volumes, after.volumes, what, f"{path}.volumes")
    old, new = before.provide_secrets, after.provide_secrets
    if (old is None) != (new is None) or frozenset(old or ()) != frozenset(new or ()):
        shown = "every secret" if new is None else ", ".join(new) or "no secret"
        make = _narrows if new == () else _widens
        yield make(f"{path}.provide_secrets", f"provides other secrets to the programs of {what}: {shown}")
    yield from _others(before, after, frozenset({"injection_files", "volumes", "provide_secrets"}), what, path)


def _files(
    before: Sequence[InjectionFile], after: Sequence[InjectionFile], image: str, path: str
) -> Iterator[Difference]:
    old, new = {file.path: file for file in before}, {file.path: file for file in after}
    for name in _added(old, new):
        yield _changes(f"{path}[{_step(name)}]", f"adds injection file {_name(name)} to {image}{_injected(new[name])}")
    for name in _added(new, old):
        yield _changes(f"{path}[{_step(name)}]", f"removes injection file {_name(name)} from {image}")
    for name in _kept(old, new):
        first, second = old[name].permission, new[name].permission
        what, at = f"injection file {_name(name)} of {image}", f"{path}[{_step(name)}]"
        if first != second:
            effect = Effect.WIDER if second & ~first else Effect.NARROWER
            meaning = f"changes the permission of {what}: 0o{first:o} becomes 0o{second:o}"
            yield Difference(effect=effect, path=f"{at}.permission", meaning=meaning)
        yield from _others(old[name], new[name], frozenset({"permission"}), what, at)


def _injected(file: InjectionFile) -> str:
    """What else a file does than having a content."""
    permission = "" if file.permission == InjectionFile.permission else f", permission 0o{file.permission:o}"
    return permission if file.content is not None else f"{permission}, made of the file that is there"


def _mounts(before: Sequence[ImageVolume], after: Sequence[ImageVolume], image: str, path: str) -> Iterator[Difference]:
    old, new = {mount.path: mount for mount in before}, {mount.path: mount for mount in after}
    for name in _added(old, new):
        policy = new[name].update_policy
        make = _widens if policy == _UNPROTECTED else _changes
        shown = "" if policy == ImageVolume.update_policy else f" ({policy})"
        meaning = f"mounts volume {new[name].name} at {_name(name)} in {image}{shown}"
        yield make(f"{path}[{_step(name)}]", meaning)
    for name in _added(new, old):
        meaning = f"does not mount volume {old[name].name} at {_name(name)} in {image} any more"
        yield _changes(f"{path}[{_step(name)}]", meaning)
    for name in _kept(old, new):
        what, at = f"the volume at {_name(name)} in {image}", f"{path}[{_step(name)}]"
        yield from _rollback(old[name].update_policy, new[name].update_policy, f"{at}.update_policy", what)
        yield from _others(old[name], new[name], frozenset({"update_policy"}), what, at)


def _volumes(
    before: Sequence[Volume | ImportedVolume], after: Sequence[Volume | ImportedVolume]
) -> Iterator[Difference]:
    old, new = _by_name(before), _by_name(after)
    for name in _added(old, new):
        yield from _added_volume(new[name], f"volumes[{name}]")
    for name in _added(new, old):
        yield _changes(f"volumes[{name}]", f"removes volume {name}")
    for name in _kept(old, new):
        first, second, path = old[name], new[name], f"volumes[{name}]"
        if isinstance(first, Volume) and isinstance(second, Volume):
            yield from _exports(first.exports, second.exports, f"volume {name}", path)
            yield from _recorded(first, second, path, f"volume {name}")
            yield from _others(first, second, frozenset({"exports"}), f"volume {name}", path)
        elif first != second:
            origins = f"{_origin(first)} becomes {_origin(second)}"
            yield _changes(path, f"changes where volume {name} comes from: {origins}")
            if isinstance(second, Volume):
                yield from _given(second, path)


def _added_volume(volume: Volume | ImportedVolume, path: str) -> Iterator[Difference]:
    """A volume that an earlier version had comes back with what is on it."""
    if isinstance(volume, ImportedVolume):
        yield _changes(path, f"adds volume {volume.name}, {_origin(volume)}")
        return
    files = "" if volume.files == Volume.files else f", {volume.files}"
    yield _changes(path, f"adds volume {volume.name}{files}")
    yield from _given(volume, path)


def _given(volume: Volume, path: str) -> Iterator[Difference]:
    """What a volume has that it did not have as a volume of this session."""
    yield from _exports((), volume.exports, f"volume {volume.name}", path)
    if volume.fspf_key is not None or volume.fspf_tag is not None:
        yield _widens(path, f"gives volume {volume.name} a key and a state, whatever was recorded of it before")


def _origin(volume: Volume | ImportedVolume) -> str:
    if isinstance(volume, Volume):
        return "of this session"
    version = f" version {_shown(volume.session_hash)}" if volume.session_hash else ""
    return f"imported from session {volume.session}{version} as {volume.volume}"


def _rollback(old: str, new: str, path: str, what: str) -> Iterator[Difference]:
    """An update policy: whether older files pass."""
    if old == new:
        return
    meaning = f"changes the update policy of {what}: {old} becomes {new}"
    effects = {old: Effect.NARROWER, new: Effect.WIDER}
    yield Difference(effect=effects.get(_UNPROTECTED, Effect.CHANGED), path=path, meaning=meaning)


_UNPROTECTED = "no_rollback_protection"


def _recorded(before: Volume | Service, after: Volume | Service, path: str, what: str) -> Iterator[Difference]:
    """Key and tag: another text replaces the state that is recorded, and with it what that protects from."""
    if (before.fspf_key, before.fspf_tag) != (after.fspf_key, after.fspf_tag):
        yield _widens(path, f"gives up the recorded state of {what}")


# --- secrets ---------------------------------------------------------------------------------------------------------


def _secrets(before: Sequence[Secret], after: Sequence[Secret]) -> Iterator[Difference]:
    old, new = _by_name(before), _by_name(after)
    for name in _added(old, new):
        yield _changes(f"secrets[{name}]", f"adds secret {name}, {_kind(new[name])}{_described_secret(new[name])}")
        yield from _published(name, before=False, after=new[name].export_public)
        yield from _exports((), new[name].exports, f"secret {name}", f"secrets[{name}]")
    for name in _added(new, old):
        yield _changes(f"secrets[{name}]", f"removes secret {name}, {_kind(old[name])}")
    for name in _kept(old, new):
        yield from _secret(old[name], new[name])


def _secret(before: Secret, after: Secret) -> Iterator[Difference]:
    name, what, path = after.name, f"secret {after.name}", f"secrets[{after.name}]"
    yield from _published(name, before=before.export_public, after=after.export_public)
    yield from _exports(before.exports, after.exports, what, path)
    if type(before) is not type(after):
        becomes = f"{_kind(before)} becomes {_kind(after)}{_described_secret(after)}"
        yield _changes(path, f"makes {what} another one: {becomes}")
    else:
        if before.value != after.value:
            which = "an" if before.value is None else "another"
            meaning = f"generates {what}" if after.value is None else f"gives {what} {which} explicit value"
            yield _changes(f"{path}.value", meaning)
        yield from _others(before, after, frozenset({"export_public", "exports", "value"}), what, path)


def _published(name: str, *, before: bool, after: bool) -> Iterator[Difference]:
    path = f"secrets[{name}].export_public"
    if after and not before:
        yield _widens(path, f"exports secret {name} to everyone")
    elif before and not after:
        yield _narrows(path, f"does not export secret {name} to everyone any more")


def _exports(before: Iterable[object], after: Iterable[object], what: str, path: str) -> Iterator[Difference]:
    old, new = dict.fromkeys(before), dict.fromkeys(after)
    for target in _added(old, new):
        yield _widens(f"{path}.export", f"exports {what} to {_target(target)}")
    for target in _added(new, old):
        yield _narrows(f"{path}.export", f"does not export {what} to {_target(target)} any more")


def _target(target: object) -> str:
    if isinstance(target, NamespaceTarget):
        return f"all sessions of namespace {target.namespace or '/'}"
    if isinstance(target, SessionTarget):
        version = f" version {_shown(target.session_hash)}" if target.session_hash else ""
        return f"session {target.session}{version}" + (f" of CAS {_shown(target.cas)}" if target.cas else "")
    if isinstance(target, VolumeExport):
        version = f" version {_shown(target.session_hash)}" if target.session_hash else ""
        alias = f" as {target.volume_alias}" if target.volume_alias else ""
        return f"session {target.session}{version}{alias} ({target.update_policy})"
    return "another target"


_KINDS = {
    "AsciiSecret": "ascii",
    "PublicKeySecret": "public-key",
    "PrivateKeySecret": "private-key",
    "X509CaSecret": "x509-ca",
    "X509Secret": "x509",
    "SessionCaSecret": "session-ca",
    "AadTokenSecret": "aad-token",
    "ConfigFragmentSecret": "config-fragment",
    "PgpKeySecret": "pgp-key",
    "JwtSecret": "jwt",
    "ImportedSecret": "imported from another session",
    "AkvSecret": "imported from a key vault",
    "BinarySecret": "binary",
}


def _kind(secret: Secret) -> str:
    return _KINDS.get(type(secret).__name__, type(secret).__name__)


def is_generated(secret: Secret) -> bool:
    """Whether the service makes the value, so that nobody chooses it."""
    elsewhere = AadTokenSecret | AkvSecret | ImportedSecret | PublicKeySecret
    return secret.value is None and not isinstance(secret, elsewhere)


def _described_secret(secret: Secret) -> str:
    """What is said of it beyond its kind: every member that may be shown, and whether its value is given."""
    members = ((member, getattr(secret, member.name)) for member in fields(secret) if member.repr)
    told = {member.name: value for member, value in members if value != member.default}
    shown = [
        f"{name} {_short(value)}"
        for name, value in told.items()
        if name not in _SECRET_HANDLED and value is not None and _is_short(value)
    ]
    shown += [] if secret.value is None else ["with an explicit value"]
    return f" ({', '.join(shown)})" if shown else ""


_SECRET_HANDLED = frozenset({"name", "export_public", "exports", "value"})


# --- access policy ---------------------------------------------------------------------------------------------------


def _access(before: Session, after: Session) -> Iterator[Difference]:
    """What the access policy says, without what goes to the policy board or comes from it."""
    first, second = before.access_policy, after.access_policy
    if isinstance(first, Variable) or isinstance(second, Variable):
        if first != second:
            yield _widens("access_policy", "gives the access policy by another variable, or by none")
        return
    yield from _operation("read", first.read, second.read)
    if not _moves("update", before, after):
        yield from _operation("update", first.update, second.update)
    for name, old, new in (
        ("create_sessions", first.effective_create_sessions, second.effective_create_sessions),
        ("list_sessions", first.effective_list_sessions, second.effective_list_sessions),
    ):
        written = getattr(first, name) is not None or getattr(second, name) is not None
        if written and not _moves(name, before, after):
            yield from _operation(name, old, new)
    handled = frozenset({"read", "update", "create_sessions", "list_sessions"})
    yield from _others(first, second, handled, "the access policy", "access_policy")


def _moves(operation: str, before: Session, after: Session) -> bool:
    return before.board_decides(operation) != after.board_decides(operation)


def _operation(name: str, before: tuple[Subject, ...], after: tuple[Subject, ...]) -> Iterator[Difference]:
    old, new = dict.fromkeys(before), dict.fromkeys(after)
    if old.keys() == new.keys() or (_admits_nobody(old) and _admits_nobody(new)):
        return
    effect = Effect.WIDER
    if AnySubject() in old or _admits_nobody(new) or new.keys() <= old.keys():
        effect = Effect.NARROWER
    shown = f"from {_subjects(before)} to {_subjects(after)}"
    yield Difference(effect=effect, path=f"access_policy.{name}", meaning=f"{effect.verb} {name} {shown}")


def _admits_nobody(subjects: Mapping[Subject, None]) -> bool:
    return subjects.keys() <= {NoneSubject()}


def _subjects(subjects: tuple[Subject, ...]) -> str:
    return ", ".join(_subject(subject) for subject in subjects) or "NONE"


def _subject(subject: Subject) -> str:
    match subject:
        case CreatorSubject():
            return "CREATOR"
        case AnySubject():
            return "ANY"
        case NoneSubject():
            return "NONE"
        case KeySubject(key_hash=key_hash):
            return f"key {encode_key_hash(key_hash)}"
        case CertificateHashSubject(pem_hash=pem_hash):
            return f"certificate {_shown(pem_hash)}"
        case SignerSubject(spki=spki):
            return f"signer {hashlib.sha256(spki).hexdigest()}"
        case RuleSubject(needed=needed, subjects=subjects):
            return f"{needed} of ({_subjects(subjects)})"
        case Variable():
            return _shown(subject)


# --- policy board ----------------------------------------------------------------------------------------------------


def _board(before: Session, after: Session) -> Iterator[Difference]:
    old, new, path = before.policy_board, after.policy_board, "policy_board"
    moved = list(_decided(before, after))
    yield from moved
    if old is None and new is not None:
        yield _changes(path, f"sets up a policy board: {_described(new)}")
        for member in new.members:
            if member.may_approve:
                yield _lets_approve(member)
        yield from _break_glass(None, new.break_glass)
    elif old is not None and new is None:
        yield _widens(path, f"removes the policy board: {_described(old)}")
    elif old is not None and new is not None:
        yield from _members(before, after, old, new)
        yield from _board_rules(old, new, moved=bool(moved))


def _decided(before: Session, after: Session) -> Iterator[Difference]:
    """Operations that go from the access policy to the board, or back."""
    for operation in ("update", "create_sessions"):
        old = before.board_decides(operation)
        if not _moves(operation, before, after) or (
            operation == "create_sessions" and _follows(before) and _follows(after)
        ):
            continue
        admitted = _entries(operation, after if old else before)
        shown, path = _subjects(admitted), f"policy_board.on[{operation}]"
        if old:
            effect = Effect.NARROWER if _admits_nobody(dict.fromkeys(admitted)) else Effect.WIDER
            meaning = f"takes {operation} from the policy board and gives it to {shown}"
        else:
            effect = Effect.NARROWER if AnySubject() in admitted else Effect.WIDER
            meaning = f"takes {operation} from {shown} and gives it to the policy board"
        yield Difference(effect=effect, path=path, meaning=meaning)


def _follows(session: Session) -> bool:
    """Whether sessions are created by those who update, by default."""
    policy, board = session.access_policy, session.policy_board
    given = isinstance(policy, Variable) or policy.create_sessions is not None
    return not given and (board is None or "create_sessions" not in board.on)


def _entries(operation: str, session: Session) -> tuple[Subject, ...]:
    policy = session.access_policy
    if isinstance(policy, Variable):
        return (policy,)
    return policy.update if operation == "update" else policy.effective_create_sessions


def _described(board: PolicyBoard) -> str:
    """All of it, for a board that is new or gone."""
    members = ", ".join(_member(member) for member in board.members)
    parts = [
        f"any {board.tolerated_faults + 1} of {members}",
        f"decides within {_period(board.decide_within)}",
        f"changes wait for {_period(board.time_lock)}" if board.time_lock else "changes wait for nothing",
        *(f"tells {_shown(url)}" for url in board.notify),
    ]
    return "; ".join(parts)


def _member(member: BoardMember) -> str:
    rights = (("approves", member.may_approve), ("rejects", member.may_reject))
    alone = " and ".join(verb for verb, may in rights if may)
    return f"{member.name} ({_member_key(member)}{f', {alone} alone' if alone else ''})"


def _member_key(member: BoardMember) -> str:
    """By the hash under which proposals show it."""
    if isinstance(member.signer, Variable):
        return f"key {_shown(member.signer)}"
    return f"key {_shown(hashlib.sha256(member.signer.spki).digest())}"


def _members(before: Session, after: Session, first: PolicyBoard, second: PolicyBoard) -> Iterator[Difference]:
    """A member is who has the key: names are for people."""
    old = {_identity(member): member for member in first.members}
    new = {_identity(member): member for member in second.members}
    names = {member.name for member in first.members}
    for key in _kept(old, new):
        yield from _renamed(old[key], new[key], names)
        yield from _powers(old[key], new[key])
        yield from _source(before, after, new[key])
    gone = _by_name(old[key] for key in _added(new, old))
    came = _by_name(new[key] for key in _added(old, new))
    for name, member in came.items():
        path = f"policy_board.members[{name}]"
        if name in gone:
            shown = f"{_member_key(gone[name])} becomes {_member_key(member)}"
            yield _widens(f"{path}.signer", f"gives member {name} of the policy board another key: {shown}")
            yield from _powers(gone[name], member)
        else:
            yield _widens(path, f"adds {_member(member)} to the policy board")
    for name in _added(came, gone):
        make = _widens if gone[name].may_reject else _narrows
        yield make(f"policy_board.members[{name}]", f"removes {_member(gone[name])} from the policy board")


def _identity(member: BoardMember) -> tuple[str, object]:
    """A key, or the secret that it is taken from."""
    signer = member.signer
    return ("secret", signer.placeholder.name) if isinstance(signer, Variable) else ("key", signer.spki)


def _renamed(before: BoardMember, after: BoardMember, names: Collection[str]) -> Iterator[Difference]:
    """Under a name that another key had, people may take it for that one."""
    if before.name != after.name:
        make = _widens if after.name in names else _changes
        meaning = f"renames member {before.name} of the policy board, {_member_key(after)}, to {after.name}"
        yield make(f"policy_board.members[{after.name}].name", meaning)


def _powers(before: BoardMember, after: BoardMember) -> Iterator[Difference]:
    path, member = f"policy_board.members[{after.name}].power", f"member {after.name} of the policy board"
    if after.may_approve and not before.may_approve:
        yield _lets_approve(after)
    elif before.may_approve and not after.may_approve:
        yield _narrows(path, f"does not let {member} approve alone any more")
    if after.may_reject and not before.may_reject:
        yield _narrows(path, f"lets {member} reject alone")
    elif before.may_reject and not after.may_reject:
        yield _widens(path, f"does not let {member} reject alone any more")


def _lets_approve(member: BoardMember) -> Difference:
    path = f"policy_board.members[{member.name}].power"
    return _widens(path, f"lets member {member.name} of the policy board approve alone")


def _source(before: Session, after: Session, member: BoardMember) -> Iterator[Difference]:
    """Another value of the same secret is another key."""
    if isinstance(member.signer, Variable):
        name = member.signer.placeholder.name
        if _sources(before, name) != _sources(after, name):
            path = f"policy_board.members[{member.name}].signer"
            yield _widens(path, f"takes the key of member {member.name} of the policy board, {name}, from elsewhere")


def _sources(session: Session, name: str) -> list[Secret]:
    return _given_by(_by_name(session.secrets), name)


def _given_by(secrets: Mapping[str, Secret], name: str) -> list[Secret]:
    """The secret, and the private key that it may be the public part of, without who else may use them."""
    found = [secrets[name]] if name in secrets else []
    for secret in found:
        if isinstance(secret, PublicKeySecret) and secret.private_key is not None and secret.private_key in secrets:
            found = [*found, secrets[secret.private_key]]
    return [replace(secret, exports=(), export_public=False) for secret in found]


def _board_rules(before: PolicyBoard, after: PolicyBoard, *, moved: bool) -> Iterator[Difference]:
    """moved: what the board decides has been told."""
    if before.tolerated_faults != after.tolerated_faults:
        make = _widens if after.tolerated_faults < before.tolerated_faults else _narrows
        old, new = before.tolerated_faults + 1, after.tolerated_faults + 1
        yield make(
            "policy_board.tolerated_faults", f"lets any {new} of the policy board approve a change, before {old}"
        )
    if before.decide_within != after.decide_within:
        make = _widens if after.decide_within > before.decide_within else _narrows
        shown = f"{_period(after.decide_within)}, before {_period(before.decide_within)}"
        yield make("policy_board.decide_within", f"lets the policy board decide within {shown}")
    if before.time_lock != after.time_lock:
        make = _widens if after.time_lock < before.time_lock else _narrows
        old_wait, new_wait = (_period(board.time_lock or None) for board in (before, after))
        yield make("policy_board.time_lock", f"makes approved changes wait for {new_wait} instead of {old_wait}")
    if before.on != after.on and not moved:
        old_on, new_on = (", ".join(sorted(board.on)) for board in (before, after))
        yield _changes(
            "policy_board.on", f"names what the policy board decides in other words: {old_on} becomes {new_on}"
        )
    yield from _break_glass(before.break_glass, after.break_glass)
    for url in sorted({*before.notify, *after.notify}):
        if url not in before.notify:
            yield _changes("policy_board.notify", f"tells {_shown(url)} of proposals")
        elif url not in after.notify:
            yield _widens("policy_board.notify", f"does not tell {_shown(url)} of proposals any more")
    handled = frozenset({"tolerated_faults", "members", "decide_within", "time_lock", "on", "break_glass", "notify"})
    yield from _others(before, after, handled, "the policy board", "policy_board")


def _break_glass(old: int | None, new: int | None) -> Iterator[Difference]:
    path, what = "policy_board.break_glass", "of the policy board change the session against a rejection"
    if old == new:
        return
    if new is None:
        yield _narrows(path, f"does not let any {old} {what} any more")
    else:
        make = _widens if old is None or new < old else _narrows
        yield make(path, f"lets any {new} {what}{'' if old is None else f', before {old}'}")


# --- security --------------------------------------------------------------------------------------------------------


def _security(before: Security | Variable, after: Security | Variable) -> Iterator[Difference]:
    if isinstance(before, Variable) or isinstance(after, Variable):
        if before != after:
            yield _widens("security", "gives the security section by another variable, or by none")
        return
    yield from _guard(
        before.singleton_enclaves, after.singleton_enclaves, "security.singleton_enclaves", "that instances are fresh"
    )
    yield from _guard(
        before.service_access_token, after.service_access_token, "security.service_access_token", "an access token"
    )
    first, second = before.attestation, after.attestation
    if isinstance(first, Variable) or isinstance(second, Variable):
        if first != second:
            yield _widens("security.attestation", "gives security.attestation by another variable, or by none")
    else:
        yield from _requirements(first, second)
    handled = frozenset({"singleton_enclaves", "service_access_token", "attestation"})
    yield from _others(before, after, handled, "security", "security")


def _requirements(before: SecurityAttestation, after: SecurityAttestation) -> Iterator[Difference]:
    path = "security.attestation"
    if before.mode != after.mode:
        effect = Effect.NARROWER if before.mode == "none" else Effect.WIDER
        meaning = f"attests by mode {_shown(after.mode)}, no longer by mode {_shown(before.mode)}"
        if after.mode == "none":
            meaning = "gives every service's configuration to whoever asks: mode none needs no evidence"
        yield Difference(effect=effect, path=f"{path}.mode", meaning=meaning)
    for name, verb, old, new in (
        ("tolerate", "tolerate", before.tolerate, after.tolerate),
        ("ignore_advisories", "ignore", before.ignore_advisories, after.ignore_advisories),
    ):
        for one in sorted(_shown(value) for value in new - old):
            yield _widens(f"{path}.{name}", f"{verb}s {one}")
        for one in sorted(_shown(value) for value in old - new):
            yield _narrows(f"{path}.{name}", f"does not {verb} {one} any more")
    if after.ignore_all_advisories and not before.ignore_all_advisories:
        yield _widens(f"{path}.ignore_advisories", "ignores all advisories, those still unknown included")
    elif before.ignore_all_advisories and not after.ignore_all_advisories:
        yield _narrows(f"{path}.ignore_advisories", "does not ignore all advisories any more")
    yield from _guard(
        before.must_be_sgx_local, after.must_be_sgx_local, f"{path}.must_be_sgx_local", "local attestation"
    )
    one_time = f"{path}.one_time_password_shared_secret"
    yield from _guard(
        before.one_time_password_shared_secret, after.one_time_password_shared_secret, one_time, "one-time passwords"
    )
    yield from _grace(before.tcb, after.tcb, f"{path}.tcb")
    yield from _max_age(before.max_age, after.max_age, f"{path}.max_age")
    if before.url != after.url:
        # Whoever answers there says what evidence is worth.
        make = _narrows if after.url is None else _widens
        shown = f"{_short(before.url)} becomes {_short(after.url)}"
        yield make(f"{path}.url", f"asks another attestation service: {shown}")
    if before.certificates != after.certificates:
        shown = _count(len(after.certificates), "certificate") if after.certificates else "those of Microsoft"
        yield _widens(f"{path}.certificates", f"trusts other authorities for the attestation service: {shown}")
    handled = frozenset({
        *("mode", "tolerate", "ignore_advisories", "ignore_all_advisories", "url", "certificates"),
        *("must_be_sgx_local", "one_time_password_shared_secret", "tcb", "max_age"),
    })  # fmt: skip
    yield from _others(before, after, handled, path, path)


def _grace(before: TcbRules | Variable | None, after: TcbRules | Variable | None, path: str) -> Iterator[Difference]:
    if before == after:
        return
    old, new = (rules.grace if isinstance(rules, TcbRules) else rules for rules in (before, after))
    if new is None or (isinstance(old, timedelta) and isinstance(new, timedelta) and new < old):
        yield _narrows(path, f"tolerates an outdated TCB for {_period(new)}, no longer for {_period(old)}")
    else:
        yield _widens(path, f"tolerates an outdated TCB for {_period(new)}, before for {_period(old)}")


def _max_age(
    before: timedelta | Variable | None, after: timedelta | Variable | None, path: str
) -> Iterator[Difference]:
    if before == after:
        return
    narrower = not isinstance(after, Variable) and (
        before is None or (isinstance(before, timedelta) and after is not None and after < before)
    )
    make = _narrows if narrower else _widens
    shown = "of any age" if after is None else f"of {_period(after)} at most"
    yield make(
        path, f"admits what the vendor said {shown}, before {'of any age' if before is None else _period(before)}"
    )


def _period(value: timedelta | Variable | None) -> str:
    return "no time" if value is None else show_duration(value) if isinstance(value, timedelta) else _shown(value)


def _creator(before: str | SignerSubject | None, after: str | SignerSubject | None) -> Iterator[Difference]:
    """A creator that one side does not name is not known yet: the upload decides it."""
    if before is None or after is None or before == after:
        return
    old, new = show_creator(before), show_creator(after)
    if old != new:
        yield _widens("creator", f"makes another key CREATOR: {old} becomes {new}")
    else:
        yield _changes("creator", f"records another certificate of the same creator, {new}")


def show_creator(creator: str | SignerSubject | None) -> str:
    """Who uploaded a version, by key hash, for a sentence."""
    if creator is None:
        return "nobody"
    if isinstance(creator, SignerSubject):
        return _subject(creator)
    try:
        return f"key {encode_key_hash(certificate_key_hash(creator))}"
    except ValueError:
        return "a key that cannot be read"


# --- configuration variables -----------------------------------------------------------------------------------------


def _behind(before: Session, after: Session) -> Iterator[Difference]:
    """Variables that stay, in what says who may do what, or is admitted, and whose secrets are others now."""
    old, new = _by_name(before.secrets), _by_name(after.secrets)
    known = _by_name(before.services)
    parts: list[tuple[str, object, object]] = [
        ("security", before.security, after.security),
        ("access_policy", before.access_policy, after.access_policy),
        *(
            (f"services[{service.name}].attestation", known[service.name].attestation, service.attestation)
            for service in after.services
            if service.name in known
        ),
    ]
    for path, first, second in parts:
        stay = {one.placeholder.name for one in variables_in(first)} & {
            one.placeholder.name for one in variables_in(second)
        }
        for name in sorted(stay):
            if _given_by(old, name) != _given_by(new, name):
                yield _widens(path, f"gives what $$SCONE::{name}$$ stands for in {path} another value")


# --- what all of them use --------------------------------------------------------------------------------------------


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_NamedT = TypeVar("_NamedT", bound=_Named)
_KeyT = TypeVar("_KeyT")


def _by_name(elements: Iterable[_NamedT]) -> dict[str, _NamedT]:
    return {element.name: element for element in elements}


def _added(old: Mapping[_KeyT, object], new: Mapping[_KeyT, object]) -> list[_KeyT]:
    return [key for key in new if key not in old]


def _kept(old: Mapping[_KeyT, object], new: Mapping[_KeyT, object]) -> list[_KeyT]:
    return [key for key in new if key in old]


def _restriction(before: Iterable[object], after: Iterable[object], path: str, what: str) -> Iterator[Difference]:
    """A list that admits what it names, and everything when it is empty."""
    old, new = frozenset(before), frozenset(after)
    if old == new:
        return
    narrower = bool(new) and (not old or new <= old)
    effect = Effect.NARROWER if narrower else Effect.WIDER
    shown = ", ".join(sorted(_shown(value) for value in new)) or "any"
    yield Difference(effect=effect, path=path, meaning=f"{effect.verb} {what} to {shown}")


def _guard(before: object, after: object, path: str, what: str) -> Iterator[Difference]:
    """Something that is asked for, or not; its value is not shown."""
    if before == after:
        return
    if not before:
        yield _narrows(path, f"demands {what}")
    elif not after:
        yield _widens(path, f"does not demand {what} any more")
    else:
        yield _changes(path, f"changes how it demands {what}")


def _others(before: object, after: object, handled: frozenset[str], what: str, path: str) -> Iterator[Difference]:
    """Every member that has no rule of its own. Nothing that differs stays unsaid."""
    for member in fields(after):  # type: ignore[arg-type]
        if member.name in handled:
            continue
        old, new = getattr(before, member.name), getattr(after, member.name)
        if old != new:
            shown = (
                f": {_short(old)} becomes {_short(new)}" if member.repr and _is_short(old) and _is_short(new) else ""
            )
            at = f"{path}.{member.name}" if path else member.name
            yield _changes(at, f"changes {member.name} of {what}{shown}")


def _is_short(value: object) -> bool:
    """Whether a value is a setting, which may be shown; explicit values of secrets and texts of files are not."""
    if isinstance(value, tuple):
        return all(isinstance(one, str | IPv4Address | IPv6Address) for one in value)
    return value is None or isinstance(value, bool | int | str | bytes | timedelta | Variable | RemoteCas | KeyVault)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(one) for one in value)}]"
    return "nothing" if value is None else _shown(value)


def _shown(value: object) -> str:
    """All of a setting."""
    match value:
        case bytes():
            return value.hex()
        case Variable():
            return str(value.placeholder)
        case bool():
            return "true" if value else "false"
        case timedelta():
            return show_duration(value)
        case RemoteCas():
            keys = (("key", value.cas_key), ("software key", value.cas_software_key))
            return " ".join([_name(value.url), *(f"{name} {_shown(key)}" for name, key in keys if key is not None)])
        case KeyVault():
            return f"{_name(value.vault)} by {value.token}"
        case str():
            return value if _WORD.fullmatch(value) else _quote(value)
    return str(value)


def _quote(text: str) -> str:
    """All of a text, in quotes that end where it ends. Letters beyond ASCII are escaped, as some look like nothing or
    like others, and so are blanks side by side, which a page may lay out otherwise.
    """
    return _BLANKS.sub(lambda found: " " + "\\x20" * (len(found[0]) - 1), json.dumps(text))


def _name(text: str) -> str:
    """What people name files, images and variables, so that no sentence goes on in it."""
    return text if _STEP.fullmatch(text) else _quote(text)


def _step(name: str) -> str:
    """A name as part of a path: one without brackets and quotes as it is."""
    return name if _STEP.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _widens(path: str, meaning: str) -> Difference:
    return Difference(effect=Effect.WIDER, path=path, meaning=meaning)


def _changes(path: str, meaning: str) -> Difference:
    return Difference(effect=Effect.CHANGED, path=path, meaning=meaning)


def _narrows(path: str, meaning: str) -> Difference:
    return Difference(effect=Effect.NARROWER, path=path, meaning=meaning)
