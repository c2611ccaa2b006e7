"""Does one attestation variant of a service hold for these claims? Every factor is told, as it turned out. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ostiary.appraisal.wording import any_of, found, judged, shown, unresolved
from ostiary.errors import Factor, JudgedVariant, Mismatch
from ostiary.evidence.claims import IDENTITIES, Claims
from ostiary.session.model import Service, Signer, Variable, Variant


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


def judge_variant(claims: Claims, variant: Variant | Variable) -> Iterator[Factor]:
    """Every factor of the variant; it admits if none of them is a mismatch. One without factors admits nothing."""
    if isinstance(variant, Variable):
        yield unresolved("attestation", variant)
        return
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
        advice="add mrenclave or signer to the service's attestation",
    )
