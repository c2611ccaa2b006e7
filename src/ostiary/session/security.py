"""The security section of a session: nodes to `Security`, and its normal form. Source: session language, section 12."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from ostiary.session import language
from ostiary.session.duration import format_duration, parse_duration
from ostiary.session.findings import quote, template_hint
from ostiary.session.model import Security, SecurityAttestation, TcbRules, Variable
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonValue, present
from ostiary.session.otp import read_otp_secret
from ostiary.session.pem import certificate_key_hash
from ostiary.session.placeholder import MARK
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.variable import read_variable

MIN_TOKEN_CHARACTERS = 16
"""A shorter access token is worth a note."""

_ADVISORY = re.compile(r"INTEL-SA-[0-9]{5}")
_ALL = "*"
_QE_KEY_BYTES = 32
_MAX_RSA_BITS = 65_536
_AZURE_DOMAINS = (".attest.azure.net", ".attest.azure.us", ".attest.azure.cn")
_FOR_MAA = ("url", "certificates")


def read_security(reading: Reading, node: Node | None) -> tuple[Security | Variable, JsonValue]:
    """What the session demands of evidence. Without the section: hardware evidence, nothing tolerated."""
    if node is None:
        return Security(), None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    fields = reading.fields(node, "security")
    singleton, singleton_form = _read_boolean(reading, fields.get("singleton_enclaves"))
    token, token_form = _read_token(reading, fields.get("service_access_token"))
    attestation, attestation_form = _read_attestation(reading, fields.get("attestation"))
    singleton_node = fields.get("singleton_enclaves")
    if singleton_node is not None and singleton is True and _mode(attestation) == "none":
        reading.findings.warning(singleton_node, "singleton_enclaves has no effect with mode none; remove it")
    security = Security(singleton_enclaves=singleton, service_access_token=token, attestation=attestation)
    return security, present(
        singleton_enclaves=singleton_form, service_access_token=token_form, attestation=attestation_form
    )


def _mode(attestation: SecurityAttestation | Variable) -> str | Variable:
    return attestation if isinstance(attestation, Variable) else attestation.mode


def _read_boolean(reading: Reading, node: Node | None) -> tuple[bool | Variable, JsonValue]:
    """What is off by default is left out of the normal form."""
    if node is None:
        return False, None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    value = reading.boolean(node)
    return value, value or None


def _read_token(reading: Reading, node: Node | None) -> tuple[str | Variable | None, JsonValue]:
    """The access token; it is never part of a message."""
    if node is None:
        return None, None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    text = reading.text(node)
    if MARK in text:
        reading.findings.error(node, "a variable is the whole value; write $$SCONE::name$$ and nothing else")
    elif isinstance(node, Scalar) and not node.is_null and not text:
        reading.findings.error(node, "the access token is empty, which everybody knows; write a long random text")
    elif 0 < len(text) < MIN_TOKEN_CHARACTERS:
        reading.findings.note(node, f"the access token has under {MIN_TOKEN_CHARACTERS} characters; use a longer one")
    return text, text


def _read_attestation(reading: Reading, node: Node | None) -> tuple[SecurityAttestation | Variable, JsonValue]:
    if node is None:
        return SecurityAttestation(), None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    fields = reading.fields(node, "security.attestation")
    mode = _read_mode(reading, fields.get("mode"))
    tolerate, tolerate_form = _read_tolerate(reading, fields)
    advisories, all_advisories, advisories_form = _read_advisories(reading, fields, tolerate)
    keys_form = _read_qe_keys(reading, fields)
    url, url_form = _read_url(reading, fields, mode)
    certificates, certificates_form = _read_certificates(reading, fields.get("certificates"))
    rsa_form = _read_rsa_size(reading, fields.get("min_rsa_signing_key_size"))
    local, local_form = _read_boolean(reading, fields.get("must_be_sgx_local"))
    otp = fields.get("one_time_password_shared_secret")
    tcb, tcb_form = _read_tcb(reading, fields.get("tcb"))
    max_age, max_age_form = _read_duration(reading, fields.get("max_age"))
    attestation = SecurityAttestation(
        mode=mode,
        tolerate=frozenset(tolerate),
        ignore_advisories=advisories,
        ignore_all_advisories=all_advisories,
        url=url,
        certificates=certificates,
        must_be_sgx_local=local,
        one_time_password_shared_secret=None if otp is None else read_otp_secret(reading, otp),
        tcb=tcb,
        max_age=max_age,
    )
    _check_maa(reading, fields, attestation)
    _check_local(reading, fields, attestation)
    return attestation, present(
        mode=_form(mode),
        tolerate=tolerate_form,
        ignore_advisories=advisories_form,
        trusted_scone_qe_pubkeys=keys_form,
        url=url_form,
        certificates=certificates_form,
        min_rsa_signing_key_size=rsa_form,
        must_be_sgx_local=local_form,
        one_time_password_shared_secret=otp.text if isinstance(otp, Scalar) else None,
        tcb=tcb_form,
        max_age=max_age_form,
    )


def _read_tcb(reading: Reading, node: Node | None) -> tuple[TcbRules | Variable | None, JsonValue]:
    if node is None:
        return None, None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    fields = reading.fields(node, "tcb")
    fields.require("grace", "say how long a TCB level that became out of date is tolerated, such as 30 days")
    grace, form = _read_duration(reading, fields.get("grace"))
    return None if grace is None else TcbRules(grace=grace), present(grace=form)


def _read_duration(reading: Reading, node: Node | None) -> tuple[timedelta | Variable | None, JsonValue]:
    if node is None:
        return None, None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    text = reading.text(node)
    if not text:
        if isinstance(node, Scalar) and not node.is_null:
            reading.findings.error(node, "no duration; write one such as 30 days, or leave the key out")
        return None, None
    try:
        duration = parse_duration(text)
    except ValueError as error:
        reading.findings.error(node, f"{error}{template_hint(text)}")
        return None, None
    return duration, format_duration(duration)


def _form(value: str | Variable) -> str:
    return str(value.placeholder) if isinstance(value, Variable) else value


def _read_mode(reading: Reading, node: Node | None) -> str | Variable:
    if node is None:
        return "hardware"
    return read_variable(reading, node) or reading.choice(node, language.MODES, "mode")


def _read_tolerate(reading: Reading, fields: Fields) -> tuple[list[str | Variable], list[JsonValue]]:
    node = fields.get("tolerate")
    if node is None:
        return [], []
    if not isinstance(node, SequenceNode):
        variable = read_variable(reading, node)
        if variable is not None:
            return [variable], [str(variable.placeholder)]
    values: list[str | Variable] = [
        read_variable(reading, element) or reading.choice(element, language.TOLERATE, "toleration")
        for element in reading.sequence(node, "tolerances")
    ]
    return values, [_form(value) for value in values]


def _read_advisories(
    reading: Reading, fields: Fields, tolerate: Sequence[str | Variable]
) -> tuple[frozenset[str | Variable], bool, JsonValue]:
    """Advisories by name, whether all of them, and what is written."""
    node = fields.get("ignore_advisories")
    if node is None:
        return frozenset(), False, None
    if isinstance(node, Scalar) and node.text != _ALL:
        variable = read_variable(reading, node)
        if variable is not None:
            return frozenset({variable}), False, [str(variable.placeholder)]
        reading.findings.error(node, f'found {describe(node)}, expected a list of INTEL-SA-nnnnn, or "*"')
        return frozenset(), False, None
    elements = reading.elements(node)
    values = [read_variable(reading, element) or reading.text(element) for element in elements]
    is_all = values == [_ALL]
    may_debug = any(value == "debug-mode" or isinstance(value, Variable) for value in tolerate)
    if is_all and not may_debug:
        reading.findings.warning(
            node, "* has no effect without debug-mode in tolerate; name each advisory that you accept"
        )
    if not is_all:
        for element, value in zip(elements, values, strict=True):
            if isinstance(value, str):
                _check_advisory(reading, element, value)
    written: list[JsonValue] = [_form(value) for value in values]
    named = frozenset[str | Variable]() if is_all else frozenset(values)
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


def _read_url(reading: Reading, fields: Fields, mode: str | Variable) -> tuple[str | Variable | None, JsonValue]:
    node = fields.get("url")
    if node is None:
        if mode == "maa" and not fields.near("url"):
            fields.require("url", "name the attestation service, such as https://sharedweu.weu.attest.azure.net")
        return None, None
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    text = reading.text(node)
    host = _url_host(text)
    if host is None:
        if isinstance(node, Scalar) and not node.is_null:
            reading.findings.error(
                node,
                f"found {describe(node)}, expected https://<tenant>.<region>.attest.azure.net and nothing behind it"
                f"{template_hint(text)}",
            )
    elif not host.endswith(_AZURE_DOMAINS) and "certificates" not in fields and mode == "maa":
        reading.findings.warning(
            node, f"{quote(host)} is outside Azure's domains, whose certificates alone are trusted; add certificates"
        )
    return text.removesuffix("/"), text


def _url_host(text: str) -> str | None:
    """The host of a plain https address, None for anything else."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    plain = parts.scheme == "https" and parts.path in ("", "/") and not (parts.query or parts.fragment)
    clean = text.isascii() and text.isprintable() and not set(text) & set(" @?#\\")
    return parts.hostname if plain and clean and port != 0 else None


def _read_certificates(reading: Reading, node: Node | None) -> tuple[tuple[str | Variable, ...], list[JsonValue]]:
    values: list[str | Variable] = []
    for element in () if node is None else reading.elements(node):
        values.append(read_variable(reading, element) or _read_certificate(reading, element))
    return tuple(values), [_form(value) for value in values]


def _read_certificate(reading: Reading, node: Node) -> str:
    text = reading.text(node)
    if isinstance(node, Scalar) and not node.is_null:
        try:
            certificate_key_hash(text)
        except ValueError as error:
            reading.findings.error(node, str(error))
    return text


def _read_rsa_size(reading: Reading, node: Node | None) -> JsonValue:
    if node is None:
        return None
    variable = read_variable(reading, node)
    reading.findings.warning(node, "min_rsa_signing_key_size has no effect: keys have 2048 bits or more; remove it")
    return str(variable.placeholder) if variable else reading.integer(node, least=0, most=_MAX_RSA_BITS)


def _check_maa(reading: Reading, fields: Fields, attestation: SecurityAttestation) -> None:
    if isinstance(attestation.mode, Variable):
        return
    if attestation.mode != "maa":
        for name in _FOR_MAA:
            node = fields.get(name)
            if node is not None:
                reading.findings.warning(node, f"{name} has an effect with mode maa only; remove it")
    elif not any(value == "maa-managed-tcb" or isinstance(value, Variable) for value in attestation.tolerate):
        node = fields.get("tolerate") or fields.node
        reading.findings.warning(
            node,
            "attestation will be refused without maa-managed-tcb, as Microsoft's service judges the TCB; add it",
            path=fields.node.path.child("tolerate"),
        )


def _check_local(reading: Reading, fields: Fields, attestation: SecurityAttestation) -> None:
    node = fields.get("must_be_sgx_local")
    tolerated = any(
        value == "local-attestation-trust-cas-tcb" or isinstance(value, Variable) for value in attestation.tolerate
    )
    if node is not None and attestation.must_be_sgx_local is True and not tolerated:
        reading.findings.error(
            node, "local attestation is demanded and not tolerated; add local-attestation-trust-cas-tcb to tolerate"
        )
