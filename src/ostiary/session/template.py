"""Texts with placeholders, held against the secrets of their session. Source: session language, sections 7 and 8."""

from __future__ import annotations

from ostiary.session import language
from ostiary.session.facts import SecretFacts
from ostiary.session.findings import quote
from ostiary.session.node import Node
from ostiary.session.placeholder import SOFTWARE_IDENTITY, Placeholder, Template, parse_template
from ostiary.session.reading import Reading


def read_template(reading: Reading, node: Node, text: str, *, raw_allowed: bool) -> Template:
    """Cut `text`, which stands at `node`, and check each of its placeholders.

    Guarantees: each names a secret of the session, in a format that its kind and the declared version have, as far as
    the text of the session tells the kind; none is a configuration fragment.
    raw_allowed: the place takes any bytes; elsewhere they are a warning, as a NUL among them would refuse the start.
    """
    template = parse_template(text)
    if SOFTWARE_IDENTITY in text:
        reading.findings.error(node, f"{SOFTWARE_IDENTITY} is known only to the payload of a jwt secret; use one")
    elif template.has_malformed:
        reading.findings.warning(
            node, "text begins with $$SCONE: and is no placeholder, so it stays as it is; write $$SCONE::name:format$$"
        )
    if template.has_shell_escape:
        reading.findings.warning(node, "a placeholder with backslashes stays as it is; write $$SCONE::name:format$$")
    for placeholder in dict.fromkeys(template.placeholders):
        facts = check_placeholder(reading, node, placeholder)
        if facts is None:
            continue
        if facts.kind == "config-fragment":
            reading.findings.error(
                node, f"{quote(str(placeholder))} is a config-fragment, which can stand in configuration sections only"
            )
        elif is_raw(reading, placeholder, facts) and not raw_allowed:
            reading.findings.warning(
                node,
                f"{quote(str(placeholder))} is raw bytes, and a NUL among them would refuse the start; "
                "use a text format such as :hex",
            )
    return template


def check_placeholder(reading: Reading, node: Node, placeholder: Placeholder) -> SecretFacts | None:
    """What is known of the placeholder's secret, if the secret is there and has that format; else a mistake and None.

    None without a mistake of its own if the secret itself is mistaken.
    """
    shown = quote(str(placeholder))
    facts = reading.secrets.get(placeholder.name)
    stem = placeholder.name.rpartition(".")[0]
    if facts is None and stem in reading.secrets:
        facts = reading.secrets[stem]
        return None if facts.mistaken else _check_dot_form(reading, node, placeholder, facts)
    if facts is None:
        hint = reading.findings.did_you_mean(placeholder.name, reading.secrets)
        reading.findings.error(node, f"{shown} names a secret that is not in secrets{hint}")
        return None
    return None if facts.mistaken else _check_format(reading, node, placeholder, facts)


def is_raw(reading: Reading, placeholder: Placeholder, facts: SecretFacts) -> bool:
    """Whether the placeholder certainly stands for bytes rather than text. The dot forms are all text."""
    if placeholder.name not in reading.secrets:
        return False
    return facts.kind is not None and placeholder.format in language.RAW_FORMATS.get(facts.kind, frozenset())


def _check_dot_form(reading: Reading, node: Node, placeholder: Placeholder, facts: SecretFacts) -> SecretFacts | None:
    shown = quote(str(placeholder))
    stem, _, form = placeholder.name.rpartition(".")
    if form not in _dot_forms(facts):
        what = "an import" if facts.kind is None else f"of kind {facts.kind}"
        known = [name for name in _formats(facts) if name]
        reading.findings.error(
            node,
            f"{shown}: there is no secret {quote(placeholder.name)}, and {quote(stem)}, {what}, "
            f"has no format {quote(form)}{reading.findings.did_you_mean(form, known)}",
        )
        return None
    if placeholder.format:
        reading.findings.error(node, f"{shown} has two formats; write $$SCONE::{stem}:{placeholder.format}$$")
        return None
    if form == "key":
        _check_key(reading, node, shown, facts)
    _check_encoding(reading, node, placeholder, raw=False)
    reading.findings.note(node, f"{shown} is the deprecated form with a dot; write a colon")
    return facts


def _check_format(reading: Reading, node: Node, placeholder: Placeholder, facts: SecretFacts) -> SecretFacts | None:
    shown = quote(str(placeholder))
    form = placeholder.format
    formats = _formats(facts)
    if form not in formats:
        known = [name for name in formats if name]
        hint = reading.findings.did_you_mean(form, known) if known else f"; write $$SCONE::{placeholder.name}$$"
        what = "no kind of secret" if facts.kind is None else f"kind {facts.kind}"
        has = "has the format" if facts.kind is None else "has no format"
        reading.findings.error(node, f"{shown}: {what} {has} {quote(form)}{hint}")
        return None
    kind = "" if facts.kind is None else f", of kind {facts.kind},"
    reading.require_level(node, f"{shown}{kind}", formats[form])
    if form.startswith("privatekey") or form == "pkcs12-with-private-key":
        _check_key(reading, node, shown, facts)
    _check_encoding(reading, node, placeholder, raw=is_raw(reading, placeholder, facts))
    return facts


def _formats(facts: SecretFacts) -> dict[str, int]:
    """Formats that the secret may have, each with the lowest level at which it may."""
    if facts.kind is not None:
        return dict(language.FORMATS[facts.kind])
    lowest: dict[str, int] = {}
    for formats in language.FORMATS.values():
        for form, level in formats.items():
            lowest[form] = min(level, lowest.get(form, level))
    return lowest


def _dot_forms(facts: SecretFacts) -> frozenset[str]:
    if facts.kind is not None:
        return language.DOT_FORMS[facts.kind]
    return frozenset[str]().union(*language.DOT_FORMS.values())


def _check_key(reading: Reading, node: Node, shown: str, facts: SecretFacts) -> None:
    if not facts.has_key:
        reading.findings.error(node, f"{shown}: the certificate has no private_key in this session; name one there")


def _check_encoding(reading: Reading, node: Node, placeholder: Placeholder, *, raw: bool) -> None:
    encoding = placeholder.encoding
    if not encoding:
        return
    shown = quote(str(placeholder))
    if encoding not in language.ENCODINGS:
        reading.findings.error(
            node, f"{shown}: unknown encoding{reading.findings.did_you_mean(encoding, language.ENCODINGS)}"
        )
        return
    reading.require_level(node, f"the encoding of {shown}", language.ENCODINGS[encoding])
    if raw:
        reading.findings.error(
            node, f"{shown}: an encoding needs text, and this format is raw bytes; use a text format"
        )
