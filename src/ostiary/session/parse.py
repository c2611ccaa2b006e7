"""A session text to a `Session`, with everything there is to say about it.

Reading never stops at a mistake: each section reports what is wrong in it, and one error carries all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ostiary.errors import Finding, InputError, TooLargeError
from ostiary.session import language
from ostiary.session.access import names_creator, read_access_policy
from ostiary.session.document import MAX_DOCUMENT_BYTES, MAX_NODES, parse_document
from ostiary.session.findings import Findings, template_hint
from ostiary.session.image import read_image
from ostiary.session.model import AccessPolicy, Secret, Security, SecurityAttestation, Session, X509CaSecret, X509Secret
from ostiary.session.name import read_session_name
from ostiary.session.node import Mapping, Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, count_nodes, present, session_hash
from ostiary.session.pem import certificate_key_hash
from ostiary.session.reading import Fields, Reading, describe, first_repeated
from ostiary.session.secret import check_references, read_secret, secret_name
from ostiary.session.security import read_security
from ostiary.session.service import read_service
from ostiary.session.template import SecretFacts
from ostiary.session.yaml_text import write_yaml

_LATEST = language.spell(max(language.LEVELS.values()))
_HASH_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class ParsedSession:
    """A session, and what its text says in normal form.

    normal: the ordered JSON value whose hash names this version. text: YAML of it, at most MAX_DOCUMENT_BYTES.
    hash: 32 bytes. warnings, notes: for the author, in the order of the text.
    """

    session: Session
    normal: JsonObject = field(repr=False)
    text: str = field(repr=False)
    hash: bytes
    warnings: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()

    @property
    def names_creator(self) -> bool:
        """Whether the effective access policy names CREATOR, so that the version records who uploaded it."""
        return names_creator(self.session.access_policy)


def parse_session(text: bytes | str) -> ParsedSession:
    """Read a session text: YAML of language 0.2 or 0.3.x. Trusts nothing, asks nobody.

    Guarantees on return: every rule of the language that can be decided from the text alone holds; each placeholder
    names a secret of the session in a format of its kind; nothing in the text is ignored, except what a warning names;
    `parse_session(result.text)` gives the same hash and an equal session.
    Does not guarantee: that `predecessor` is current, that `creator` is the caller, that RSA keys and certificate
    chains verify (`secret` does when it makes the values), that the session may exist (`broker`).

    Raises SessionFormatError with every mistake, TooLargeError (over MAX_DOCUMENT_BYTES), and nothing else.
    Source: session language, sections 1 to 8, 11, 12; rest-api, "Normal form".
    """
    findings = Findings()
    root = parse_document(text, findings)
    reading = _reading(root, findings)
    session, normal = _read_session(reading, root)
    reading.report_missing_version(root)
    findings.raise_if_any()
    return _assemble(session, normal, findings.warnings, findings.notes)


def with_creator(parsed: ParsedSession, certificate_pem: str | None) -> ParsedSession:
    """The same session as uploaded by the TLS client with this certificate, None if it showed none.

    Guarantees: `creator` is that certificate, byte for byte, exactly if the effective access policy names CREATOR;
    a creator that the text gave is replaced. Does not guarantee that somebody can read or change the session:
    without a certificate CREATOR admits nobody, and whoever calls must refuse that.

    Raises InputError (not one PEM certificate), TooLargeError. Source: session language, section 4.
    """
    creator = certificate_pem if parsed.names_creator else None
    if creator is not None:
        try:
            certificate_key_hash(creator)
        except ValueError as error:
            raise InputError(f"the creator's certificate: {error}") from None
    normal = {name: value for name, value in parsed.normal.items() if name != "creator"}
    if creator is not None:
        normal["creator"] = creator
    return _assemble(replace(parsed.session, creator=creator), normal, parsed.warnings, parsed.notes)


def _assemble(
    session: Session, normal: JsonObject, warnings: tuple[Finding, ...], notes: tuple[Finding, ...]
) -> ParsedSession:
    """Refuse what could not be read back: the normal form says in full what a text may abbreviate."""
    text = write_yaml(normal)
    size = len(text.encode())
    if size > MAX_DOCUMENT_BYTES:
        raise TooLargeError(
            f"the session has {size} bytes in normal form, at most {MAX_DOCUMENT_BYTES} are allowed; "
            "move large files out of it"
        )
    nodes = count_nodes(normal)
    if nodes > MAX_NODES:
        raise TooLargeError(f"the session has {nodes} nodes in normal form, at most {MAX_NODES} are allowed; split it")
    return ParsedSession(
        session=session, normal=normal, text=text, hash=session_hash(normal), warnings=warnings, notes=notes
    )


def _reading(root: Mapping, findings: Findings) -> Reading:
    node = root.values.get("version")
    if node is None or (isinstance(node, Scalar) and node.is_null):
        findings.warning(
            root, f'no version, so 0.1 is assumed; add the line version: "{_LATEST}"', path=root.path.child("version")
        )
        return Reading(findings, level=language.V0_1, declared=None)
    text = node.text if isinstance(node, Scalar) else ""
    if text not in language.LEVELS:
        known = ", ".join(language.LEVELS)
        findings.error(node, f"found {describe(node)}, expected a version out of {known}{template_hint(text)}")
    return Reading(findings, level=language.LEVELS.get(text, max(language.LEVELS.values())), declared=text)


def _read_session(reading: Reading, root: Mapping) -> tuple[Session, JsonObject]:
    fields = reading.fields(root, "session")
    version = _text_of(fields.get("version"))
    name_node = fields.require("name", "give the session a name")
    name = "" if name_node is None else read_session_name(reading, name_node)
    predecessor_node = fields.get("predecessor")
    predecessor = None if predecessor_node is None else reading.digest(predecessor_node, size=_HASH_BYTES)
    secrets, secret_forms, facts = _read_secrets(reading, fields.get("secrets"))
    image_nodes = _section(reading, fields.get("images"), "images")
    images = [read_image(reading, node, facts) for node in image_nodes]
    _check_unique(reading, [(image.name, node) for (image, _), node in zip(images, image_nodes, strict=True)], "image")
    attestation, security_form = read_security(reading, fields.get("security"))
    service_nodes = _section(reading, fields.get("services"), "services")
    attested = attestation.mode != "none"
    services = [read_service(reading, node, facts, attested=attested) for node in service_nodes]
    _check_unique(
        reading, [(service.name, node) for (service, _), node in zip(services, service_nodes, strict=True)], "service"
    )
    policy, policy_form = read_access_policy(reading, fields.get("access_policy"))
    creator = _read_creator(reading, fields, policy)
    session = Session(
        version=version or language.spell(language.V0_1),
        name=name,
        predecessor=predecessor,
        services=tuple(service for service, _ in services),
        images=tuple(image for image, _ in images),
        secrets=secrets,
        access_policy=policy,
        security=Security(attestation=attestation),
        creator=creator,
    )
    _warn(reading, fields, session, attestation)
    image_forms: list[JsonValue] = [form for _, form in images]
    service_forms: list[JsonValue] = [form for _, form in services]
    head: dict[str, JsonValue] = {
        **present(version=version, name=name),
        "predecessor": None if predecessor is None else predecessor.hex(),
    }
    rest = present(
        images=image_forms,
        secrets=secret_forms,
        services=service_forms,
        access_policy=policy_form,
        security=security_form,
        creator=creator,
    )
    return session, {**head, **rest}


def _read_secrets(
    reading: Reading, node: Node | None
) -> tuple[tuple[Secret, ...], list[JsonValue], dict[str, SecretFacts]]:
    nodes = _section(reading, node, "secrets")
    read = [(element, *read_secret(reading, element)) for element in nodes]
    _check_unique(reading, [(secret_name(element) or "", element) for element, _, _ in read], "secret")
    by_name: dict[str, tuple[Secret | None, Node]] = {}
    for element, secret, _ in read:
        name = secret_name(element)
        if name:
            by_name.setdefault(name, (secret, element))
    check_references(reading, by_name)
    forms: list[JsonValue] = [form for _, _, form in read]
    facts = {name: _facts(reading, secret, element) for name, (secret, element) in by_name.items()}
    return tuple(secret for _, secret, _ in read if secret is not None), forms, facts


def _facts(reading: Reading, secret: Secret | None, node: Node) -> SecretFacts:
    if secret is None:
        return SecretFacts(kind=None)
    kind = reading.text(node.values["kind"]) if isinstance(node, Mapping) else ""
    has_key = not isinstance(secret, X509Secret | X509CaSecret) or secret.private_key is not None
    return SecretFacts(kind=kind, has_key=has_key)


def _section(reading: Reading, node: Node | None, what: str) -> tuple[Node, ...]:
    return () if node is None else reading.sequence(node, what)


def _check_unique(reading: Reading, named: Sequence[tuple[str, Node]], what: str) -> None:
    for _, again, first in first_repeated((name, node) for name, node in named if name):
        place = again.values["name"] if isinstance(again, Mapping) else again
        reading.findings.error(place, f"another {what} on line {first.line} has the same name; rename one of them")


def _read_creator(reading: Reading, fields: Fields, policy: AccessPolicy) -> str | None:
    node = fields.get("creator")
    if node is None:
        return None
    if isinstance(node, Mapping):
        if not reading.fields(node, "creator", {}).node.values:
            reading.findings.error(node, "found an empty mapping; leave creator out, the service adds it")
        return None
    text = reading.text(node)
    try:
        certificate_key_hash(text)
    except ValueError as error:
        reading.findings.error(node, f"{error}; leave creator out, the service adds it")
    if not names_creator(policy):
        reading.findings.warning(node, "the access policy does not name CREATOR, so creator is left out; remove it")
        return None
    return text


def _warn(reading: Reading, fields: Fields, session: Session, attestation: SecurityAttestation) -> None:
    images = {image.name for image in session.images}
    nodes = fields.get("services")
    for service, node in zip(session.services, reading.elements(nodes) if nodes is not None else (), strict=False):
        if service.image_name is not None and service.image_name not in images and isinstance(node, Mapping):
            reading.findings.warning(
                node.values["image_name"], "there is no such image, so the program gets no files; add it to images"
            )
    if attestation.mode == "none" and session.services:
        security = fields.get("security")
        mode = security.values["attestation"] if isinstance(security, Mapping) else None
        if isinstance(mode, Mapping):
            reading.findings.warning(
                mode.values["mode"], "whoever reaches the service gets the secrets without evidence; for tests only"
            )


def _text_of(node: Node | None) -> str | None:
    return node.text if isinstance(node, Scalar) else None
