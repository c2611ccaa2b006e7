"""Does one attestation variant of a service hold for these claims? Every factor that does not is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ostiary.appraisal.wording import found, shown, unresolved
from ostiary.errors import Mismatch
from ostiary.evidence.claims import IDENTITIES, Claims
from ostiary.session.model import Service, Signer, Variable, Variant


def judge_variants(claims: Claims, service: Service) -> tuple[int | None, tuple[Mismatch, ...]]:
    """The index of the first variant that holds and nothing; or None and the mismatches of the nearest variant."""
    nearest: tuple[Mismatch, ...] = ()
    for index, variant in enumerate(service.attestation):
        mismatches = tuple(judge_variant(claims, variant))
        if not mismatches:
            return index, ()
        if not nearest or len(mismatches) < len(nearest):
            nearest = mismatches
    return None, nearest or (_without_factors(claims),)


def judge_variant(claims: Claims, variant: Variant | Variable) -> Iterator[Mismatch]:
    """Every factor of the variant that does not hold; nothing: it admits. One without factors admits nothing."""
    if isinstance(variant, Variable):
        yield unresolved("attestation", variant)
        return
    if not variant.mrenclave and variant.signer is None:
        yield _without_factors(claims)
    if variant.mrenclave and claims.measurements.get("mrenclave") not in variant.mrenclave:
        yield Mismatch(
            factor="mrenclave",
            found=found(claims.measurements.get("mrenclave")),
            expected=" or ".join(shown(value) for value in variant.mrenclave),
            advice="start the program that was measured, or update the session if the change is meant",
        )
    if isinstance(variant.signer, Variable):
        yield unresolved("signer", variant.signer)
    elif variant.signer:
        yield from _judge_signer(claims, variant.signer)


def _judge_signer(claims: Claims, signer: Signer) -> Iterator[Mismatch]:
    if claims.signer is None or claims.signer != signer.mrsigner:
        yield Mismatch(
            factor="signer.mrsigner",
            found=found(claims.signer),
            expected=shown(signer.mrsigner),
            advice="start a program of that signer",
        )
    if claims.product_id is None or claims.product_id != signer.isvprodid:
        yield Mismatch(
            factor="signer.isvprodid",
            found=found(claims.product_id),
            expected=shown(signer.isvprodid),
            advice="start that product of the signer",
        )
    low = 0 if signer.isvsvn_min is None else signer.isvsvn_min
    high = 65535 if signer.isvsvn_max is None else signer.isvsvn_max
    svn = claims.svn
    if isinstance(low, Variable) or isinstance(high, Variable) or svn is None or not low <= svn <= high:
        yield Mismatch(
            factor="signer.isvsvn",
            found=found(svn),
            expected=f"{shown(low)} to {shown(high)}",
            advice="start a version of the program with such a security version number",
        )


def _without_factors(claims: Claims) -> Mismatch:
    return Mismatch(
        factor="attestation",
        found=f"{IDENTITIES[claims.tee]} {claims.identity.hex()}",
        expected="a variant with at least one factor; the session names none",
        advice="add mrenclave or signer to the service's attestation",
    )
