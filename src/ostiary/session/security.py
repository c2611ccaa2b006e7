"""The security section of a session: nodes to `SecurityAttestation`, and its normal form.

Source: session language, section 12.
"""

from __future__ import annotations

import re

from ostiary.session import language
from ostiary.session.model import SecurityAttestation
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.reading import Fields, Reading, describe

_ADVISORY = re.compile(r"INTEL-SA-[0-9]{5}")
_ALL = "*"
_QE_KEY_BYTES = 32


def read_security(reading: Reading, node: Node | None) -> tuple[SecurityAttestation, JsonObject]:
    """What the session tolerates. Without the section: hardware evidence, nothing tolerated."""
    if node is None:
        return SecurityAttestation(), {}
    attestation = reading.fields(node, "security").get("attestation")
    if attestation is None:
        return SecurityAttestation(), {}
    fields = reading.fields(attestation, "security.attestation")
    mode_node = fields.get("mode")
    mode = "hardware" if mode_node is None else reading.choice(mode_node, language.MODES, "mode")
    tolerate = _read_tolerate(reading, fields)
    advisories, all_advisories, advisories_form = _read_advisories(reading, fields, tolerate)
    keys_form = _read_qe_keys(reading, fields)
    security = SecurityAttestation(
        mode=mode,
        tolerate=frozenset(tolerate),
        ignore_advisories=advisories,
        ignore_all_advisories=all_advisories,
    )
    tolerate_form: list[JsonValue] = [*tolerate]
    form = present(
        mode=mode,
        tolerate=tolerate_form,
        ignore_advisories=advisories_form,
        trusted_scone_qe_pubkeys=keys_form,
    )
    return security, {"attestation": form}


def _read_tolerate(reading: Reading, fields: Fields) -> list[str]:
    node = fields.get("tolerate")
    if node is None:
        return []
    return [
        reading.choice(element, language.TOLERATE, "toleration") for element in reading.sequence(node, "tolerances")
    ]


def _read_advisories(reading: Reading, fields: Fields, tolerate: list[str]) -> tuple[frozenset[str], bool, JsonValue]:
    """Advisories by name, whether all of them, and what is written."""
    node = fields.get("ignore_advisories")
    if node is None:
        return frozenset(), False, None
    if isinstance(node, Scalar) and node.text != _ALL:
        reading.findings.error(node, f'found {describe(node)}, expected a list of INTEL-SA-nnnnn, or "*"')
        return frozenset(), False, None
    elements = reading.elements(node)
    texts = [reading.text(element) for element in elements]
    is_all = texts == [_ALL]
    if is_all and "debug-mode" not in tolerate:
        reading.findings.warning(
            node, "* has no effect without debug-mode in tolerate; name each advisory that you accept"
        )
    if not is_all:
        for element, text in zip(elements, texts, strict=True):
            _check_advisory(reading, element, text)
    written: list[JsonValue] = [*texts]
    named = frozenset() if is_all else frozenset(texts)
    return named, is_all, written if isinstance(node, SequenceNode) else _ALL


def _check_advisory(reading: Reading, node: Node, text: str) -> None:
    if text == _ALL:
        reading.findings.error(node, "* must be the only entry; remove it or the others")
    elif isinstance(node, Scalar) and not node.is_null and not _ADVISORY.fullmatch(text):
        reading.findings.error(node, f"found {describe(node)}, expected an advisory such as INTEL-SA-00657")


def _read_qe_keys(reading: Reading, fields: Fields) -> list[JsonValue]:
    node = fields.get("trusted_scone_qe_pubkeys")
    if node is None:
        return []
    reading.findings.warning(node, "keys of SCONE's own quoting enclave add no trust here; remove them")
    return [reading.digest(element, size=_QE_KEY_BYTES).hex() for element in reading.sequence(node, "64 hex digits")]
