"""Texts with placeholders, held against the secrets of their session. Source: session language, sections 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.session import language
from ostiary.session.findings import did_you_mean, quote
from ostiary.session.node import Node
from ostiary.session.placeholder import Placeholder, Template, parse_template
from ostiary.session.reading import Reading


@dataclass(frozen=True, kw_only=True)
class SecretFacts:
    """What a placeholder's check needs of one secret.

    kind: None if the secret itself is mistaken; then nothing is checked.
    has_key: the secret is no certificate, or one whose private key is in the session.
    """

    kind: str | None
    has_key: bool = True


def read_template(
    reading: Reading, node: Node, text: str, secrets: Mapping[str, SecretFacts], *, raw_allowed: bool
) -> Template:
    """Cut `text`, which stands at `node`, and check each of its placeholders.

    Guarantees: each names a secret of the session, in a format that its kind and the declared version have.
    raw_allowed: the place takes any bytes; elsewhere they are a warning, as a NUL among them would refuse the start.
    """
    template = parse_template(text)
    if template.has_malformed:
        reading.findings.warning(
            node, "text begins with $$SCONE: and is no placeholder, so it stays as it is; write $$SCONE::name:format$$"
        )
    if template.has_shell_escape:
        reading.findings.warning(node, "a placeholder with backslashes stays as it is; write $$SCONE::name:format$$")
    for placeholder in dict.fromkeys(template.placeholders):
        _check(reading, node, placeholder, secrets, raw_allowed=raw_allowed)
    return template


def _check(
    reading: Reading, node: Node, placeholder: Placeholder, secrets: Mapping[str, SecretFacts], *, raw_allowed: bool
) -> None:
    shown = quote(str(placeholder))
    facts = secrets.get(placeholder.name)
    stem = placeholder.name.rpartition(".")[0]
    if facts is None and stem in secrets:
        _check_dot_form(reading, node, placeholder, secrets[stem])
        return
    if facts is None:
        reading.findings.error(
            node, f"{shown} names a secret that is not in secrets{did_you_mean(placeholder.name, secrets)}"
        )
    elif facts.kind is not None:
        _check_format(reading, node, placeholder, facts.kind, facts, raw_allowed=raw_allowed)


def _check_dot_form(reading: Reading, node: Node, placeholder: Placeholder, facts: SecretFacts) -> None:
    if facts.kind is None:
        return
    shown = quote(str(placeholder))
    stem, _, form = placeholder.name.rpartition(".")
    forms = language.DOT_FORMS[facts.kind]
    if form not in forms:
        known = [name for name in language.FORMATS[facts.kind] if name]
        reading.findings.error(
            node,
            f"{shown}: there is no secret {quote(placeholder.name)}, and {quote(stem)}, of kind {facts.kind}, "
            f"has no format {quote(form)}{did_you_mean(form, known)}",
        )
    elif placeholder.format:
        reading.findings.error(node, f"{shown} has two formats; write $$SCONE::{stem}:{placeholder.format}$$")
    else:
        if form == "key":
            _check_key(reading, node, shown, facts)
        _check_encoding(reading, node, placeholder, raw=False)
        reading.findings.note(node, f"{shown} is the deprecated form with a dot; write a colon")


def _check_format(
    reading: Reading, node: Node, placeholder: Placeholder, kind: str, facts: SecretFacts, *, raw_allowed: bool
) -> None:
    shown = quote(str(placeholder))
    form = placeholder.format
    formats = language.FORMATS[kind]
    if form not in formats:
        known = [name for name in formats if name]
        hint = did_you_mean(form, known) if known else f"; write $$SCONE::{placeholder.name}$$"
        reading.findings.error(node, f"{shown}: kind {kind} has no format {quote(form)}{hint}")
        return
    reading.require_level(node, f"{shown}, of kind {kind},", formats[form])
    raw = form in language.RAW_FORMATS.get(kind, frozenset())
    if form.startswith("privatekey") or form == "pkcs12-with-private-key":
        _check_key(reading, node, shown, facts)
    _check_encoding(reading, node, placeholder, raw=raw)
    if raw and not raw_allowed:
        reading.findings.warning(
            node, f"{shown} is raw bytes, and a NUL among them would refuse the start; use a text format such as :hex"
        )


def _check_key(reading: Reading, node: Node, shown: str, facts: SecretFacts) -> None:
    if not facts.has_key:
        reading.findings.error(node, f"{shown}: the certificate has no private_key in this session; name one there")


def _check_encoding(reading: Reading, node: Node, placeholder: Placeholder, *, raw: bool) -> None:
    encoding = placeholder.encoding
    if not encoding:
        return
    shown = quote(str(placeholder))
    if encoding not in language.ENCODINGS:
        reading.findings.error(node, f"{shown}: unknown encoding{did_you_mean(encoding, language.ENCODINGS)}")
        return
    reading.require_level(node, f"the encoding of {shown}", language.ENCODINGS[encoding])
    if raw:
        reading.findings.error(
            node, f"{shown}: an encoding needs text, and this format is raw bytes; use a text format"
        )
