"""Reports, advice and evidence facts as JSON, and back. Pure. docs/denials.md shows the form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ostiary.appraisal.advice import Advice
from ostiary.appraisal.patch import Operation, Wisdom
from ostiary.errors import AppraisalReport, Factor, Held, InputError, JudgedVariant, Mismatch
from ostiary.evidence.claims import Claims
from ostiary.session.normal import JsonValue

MAX_MEASUREMENTS = 48
"""Measurements that are kept of one evidence; a TPM may have two banks of 24."""
MAX_WORDS = 32
"""Advisories, and conditions."""
MAX_WORD_CHARACTERS = 100
"""Of an advisory, a name, a status, which vendors keep far shorter."""
MAX_TEXT_CHARACTERS = 2_000
"""Of one text in a report; vendors' fields and lists of a session have no such bound themselves."""


def write_claims(claims: Claims) -> dict[str, JsonValue]:
    """What the evidence said, bytes as hex, times in RFC 3339; without what only the vendor's tools read (`raw`)."""
    measurements = sorted(claims.measurements.items())[:MAX_MEASUREMENTS]
    return {
        "tee": claims.tee,
        "measurements": {_word(name): value.hex() for name, value in measurements},
        "signer": None if claims.signer is None else claims.signer.hex(),
        "product_id": claims.product_id,
        "svn": claims.svn,
        "debug": claims.debug,
        "software": claims.software,
        "conditions": [_word(condition) for condition in sorted(claims.conditions)[:MAX_WORDS]],
        "tcb_status": _word(claims.tcb_status),
        "tcb_date": _time(claims.tcb_date),
        "superseded": _time(claims.superseded),
        "issued": _time(claims.issued),
        "advisories": [_word(advisory) for advisory in sorted(claims.advisories)[:MAX_WORDS]],
        "platform_id": claims.platform_id[: 2 * MAX_WORD_CHARACTERS],
        "qe_id": None if claims.qe_id is None else claims.qe_id.hex(),
        "attestation_service": None if claims.attestation_service is None else _word(claims.attestation_service),
    }


def write_report(report: AppraisalReport, *, most_variants: int) -> dict[str, JsonValue]:
    """The report with the nearest `most_variants` variants, in the order of the session; the others are counted."""
    nearest = sorted(report.variants, key=lambda variant: variant.distance)[:most_variants]
    told = sorted(nearest, key=lambda variant: variant.index)
    return {
        "general": [_write_factor(factor) for factor in report.general],
        "variants": [
            {"index": variant.index, "factors": [_write_factor(factor) for factor in variant.factors]}
            for variant in told
        ],
        "variants_left_out": len(report.variants) - len(told),
    }


def read_report(document: Mapping[str, Any]) -> AppraisalReport:
    """What `write_report` wrote. Raises InputError for anything else."""
    try:
        return AppraisalReport(
            general=tuple(_read_factor(factor) for factor in document["general"]),
            variants=tuple(
                JudgedVariant(
                    index=int(variant["index"]), factors=tuple(_read_factor(factor) for factor in variant["factors"])
                )
                for variant in document["variants"]
            ),
        )
    except _STRANGE as error:
        raise InputError("this is no report of an appraisal") from error


def write_advice(advice: Advice) -> dict[str, JsonValue]:
    """The advice, without the text of the patch."""
    return {
        "operations": [
            {
                "action": operation.action,
                "path": operation.path,
                "value": operation.value,
                "wisdom": operation.wisdom.value,
                "why": operation.why,
            }
            for operation in advice.operations
        ],
        "obstacles": [_cut(obstacle) for obstacle in advice.obstacles],
        "suffices": advice.suffices,
    }


def read_advice(document: Mapping[str, Any]) -> Advice:
    """What `write_advice` wrote. Raises InputError for anything else."""
    try:
        return Advice(
            operations=tuple(
                Operation(
                    action=str(operation["action"]),
                    path=str(operation["path"]),
                    value=operation["value"],
                    wisdom=Wisdom(operation["wisdom"]),
                    why=str(operation["why"]),
                )
                for operation in document["operations"]
            ),
            obstacles=tuple(str(obstacle) for obstacle in document["obstacles"]),
        )
    except _STRANGE as error:
        raise InputError("this is no advice on a session") from error


_STRANGE = (KeyError, TypeError, ValueError, AttributeError)


def _write_factor(factor: Factor) -> dict[str, JsonValue]:
    held = isinstance(factor, Held)
    return {
        "factor": _cut(factor.factor),
        "holds": held,
        "found": _cut(factor.found),
        "expected": _cut(factor.expected),
        **({} if isinstance(factor, Held) else {"advice": _cut(factor.advice)}),
    }


def _read_factor(document: Mapping[str, Any]) -> Factor:
    factor, found, expected = (str(document[name]) for name in ("factor", "found", "expected"))
    if document["holds"] is True:
        return Held(factor=factor, found=found, expected=expected)
    return Mismatch(factor=factor, found=found, expected=expected, advice=str(document["advice"]))


def _time(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _word(text: str) -> str:
    return text[:MAX_WORD_CHARACTERS]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]}…"
