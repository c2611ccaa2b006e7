"""Does one attestation variant of a service hold for these claims? Every factor is told, as it turned out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ostiary.appraisal.wording import AND, any_of, found, judged, shown, unresolved
from ostiary.errors import OTHER_TEE, Factor, JudgedVariant, Mismatch
from ostiary.evidence.claims import IDENTITIES, Claims, Tee
from ostiary.session.model import Service, Signer, TeeFactors, TeeVariant, Variable, Variant
from ostiary.session.tee import EVENTS, MAX_GUEST_SVN, MAX_VMPL, pcr_of, telling

_FIRST_FACTORS: Mapping[Tee, str] = {
    "sgx": "mrenclave or signer",
    **{tee: f"{tee}: {{{name}: …}}" for tee, name in IDENTITIES.items() if tee != "sgx"},
}


def admitting_variant(claims: Claims, service: Service) -> int | None:
    """The index of the first variant that holds in all its factors; None: no variant admits."""
    for index, variant in enumerate(service.attestation):
        if not any(isinstance(factor, Mismatch) for factor in judge_variant(claims, variant)):
            return index
    return None


def judge_variants(claims: Claims, service: Service) -> tuple[JudgedVariant, ...]:
    """Every variant with all its factors."""
    return tuple(
        JudgedVariant(index=index, factors=tuple(judge_variant(claims, variant)))
        for index, variant in enumerate(service.attestation)
    )


def judge_variant(claims: Claims, variant: Variant | TeeVariant | Variable) -> Iterator[Factor]:
    """Every factor of the variant; it admits if none of them is a mismatch. One without factors admits nothing.

    Of evidence of another TEE than the variant's, that alone is told: its factors have nothing to be compared with.
    """
    if isinstance(variant, Variable):
        yield unresolved("attestation", variant)
        return
    tee = variant.tee if isinstance(variant, TeeVariant) else "sgx"
    if claims.tee != tee:
        yield Mismatch(
            factor=OTHER_TEE,
            found=f"evidence of {claims.tee}",
            expected=f"evidence of {tee}",
            advice=f"start the program in {tee}, or add a variant for {claims.tee} to the service's attestation",
        )
    elif isinstance(variant, TeeVariant):
        yield from _judge_factors(claims, variant.tee, variant.factors)
    else:
        yield from _judge_sgx(claims, variant)


def _judge_sgx(claims: Claims, variant: Variant) -> Iterator[Factor]:
    if not variant.mrenclave and variant.signer is None:
        yield without_factors(claims)
    if variant.mrenclave:
        measurement = claims.measurements.get("mrenclave")
        yield judged(
            measurement in variant.mrenclave,
            factor="mrenclave",
            found=found(measurement),
            expected=any_of(variant.mrenclave, shown),
            advice="start the program that was measured, or update the session if the change is meant",
        )
    if isinstance(variant.signer, Variable):
        yield unresolved("signer", variant.signer)
    elif variant.signer:
        yield from _judge_signer(claims, variant.signer)


def _judge_factors(claims: Claims, tee: str, factors: TeeFactors | Variable) -> Iterator[Factor]:
    if isinstance(factors, Variable):
        yield unresolved(tee, factors)
        return
    if not telling(tee, factors):
        yield without_factors(claims)
    if claims.has_vtpm:
        yield judged(
            bool(telling("tpm", factors)),
            factor=f"{tee}.pcrs",
            found="a guest whose firmware its cloud gives to all",
            expected="PCR 4, or 7 with 9 or 11, which tell one system from another",
            advice=f"name the guest's own system as well: add pcrs or events to {tee} in the variant",
        )
    for name, values in factors.measurements:
        if name.startswith(EVENTS):
            yield _judge_events(claims, tee, name, values)
            continue
        own = claims.measurements.get(name)
        yield judged(
            own is not None and own in values,
            factor=f"{tee}.{name}",
            found=found(own),
            expected=any_of(values, shown) or "a value; the session names none",
            advice="start what was measured, or update the session if the change is meant",
        )
    if factors.guest_svn_min is not None:
        yield from _judge_bound(tee, "guest_svn_min", claims.svn, factors.guest_svn_min, MAX_GUEST_SVN)
    if factors.vmpl_max is not None:
        yield from _judge_bound(tee, "vmpl_max", _vmpl(claims), 0, factors.vmpl_max)


def _judge_events(claims: Claims, tee: str, name: str, values: tuple[bytes | Variable, ...]) -> Factor:
    events = claims.events.get(pcr_of(name), ())
    others = [digest for digest in dict.fromkeys(events) if digest not in values]
    return judged(
        bool(events) and not others,
        factor=f"{tee}.{name}",
        found=AND.join(digest.hex() for digest in others or dict.fromkeys(events)) or "no event log of this PCR",
        expected=f"no events but {any_of(values, shown)}",
        advice="start what was measured and send its event log, or update the session if the change is meant",
    )


def _judge_bound(tee: str, name: str, own: int | None, least: int | Variable, most: int | Variable) -> Iterator[Factor]:
    yield judged(
        not (isinstance(least, Variable) or isinstance(most, Variable) or own is None) and least <= own <= most,
        factor=f"{tee}.{name}",
        found=found(own),
        expected=f"{shown(least)} to {shown(most)}",
        advice="start a guest with such a security version number" if name == "guest_svn_min" else _VMPL_ADVICE,
    )


_VMPL_ADVICE = "have the report made at that privilege level of the guest or a lower number"


def _vmpl(claims: Claims) -> int | None:
    """Of SNP: the level that asked for the report, 0 the most privileged; None for the host, which is none of them."""
    vmpl = claims.raw.get("vmpl")
    return vmpl if isinstance(vmpl, int) and not isinstance(vmpl, bool) and 0 <= vmpl <= MAX_VMPL else None


def _judge_signer(claims: Claims, signer: Signer) -> Iterator[Factor]:
    yield judged(
        claims.signer is not None and claims.signer == signer.mrsigner,
        factor="signer.mrsigner",
        found=found(claims.signer),
        expected=shown(signer.mrsigner),
        advice="start a program of that signer",
    )
    yield judged(
        claims.product_id is not None and claims.product_id == signer.isvprodid,
        factor="signer.isvprodid",
        found=found(claims.product_id),
        expected=shown(signer.isvprodid),
        advice="start that product of the signer",
    )
    low = 0 if signer.isvsvn_min is None else signer.isvsvn_min
    high = 65535 if signer.isvsvn_max is None else signer.isvsvn_max
    svn = claims.svn
    yield judged(
        not (isinstance(low, Variable) or isinstance(high, Variable) or svn is None) and low <= svn <= high,
        factor="signer.isvsvn",
        found=found(svn),
        expected=f"{shown(low)} to {shown(high)}",
        advice="start a version of the program with such a security version number",
    )


def without_factors(claims: Claims) -> Mismatch:
    """What keeps out whoever comes to a service without variants, or to a variant without factors."""
    return Mismatch(
        factor="attestation",
        found=f"{IDENTITIES[claims.tee]} {claims.identity.hex()}",
        expected="a variant with at least one factor; the session names none",
        advice=f"add {_FIRST_FACTORS[claims.tee]} to the service's attestation",
    )
