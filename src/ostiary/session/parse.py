"""A session text to a `Session`, with everything there is to say about it.

Reading never stops at a mistake: each section reports what is wrong in it, and one error carries all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ostiary.errors import Finding, InputError, SessionFormatError, TooLargeError
from ostiary.session import language
from ostiary.session.access import check_signed, names_creator, read_access_policy, read_signer
from ostiary.session.declared import Declared
from ostiary.session.document import MAX_DOCUMENT_BYTES, MAX_NODES, parse_document
from ostiary.session.findings import Findings, template_hint
from ostiary.session.image import read_image
from ostiary.session.model import AccessPolicy, Secret, Security, Session, SignerSubject, Variable
from ostiary.session.name import read_session_name
from ostiary.session.node import Mapping, Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, count_nodes, present, session_hash
from ostiary.session.pem import certificate_key_hash
from ostiary.session.policy_board import read_policy_board
from ostiary.session.reading import Fields, Reading, describe, first_repeated
from ostiary.session.secret import (
    check_references,
    note_new_keys,
    read_secret,
    resolve_references,
    secret_facts,
    secret_name,
)
from ostiary.session.security import read_security
from ostiary.session.service import Demands, read_service
from ostiary.session.sharing import read_secret_store
from ostiary.session.volume import read_volume
from ostiary.session.yaml_text import write_yaml

_LATEST = language.spell(max(language.LEVELS.values()))
_HASH_BYTES = 32
_SALT_BYTES = 16
_HEX_HASH = re.compile(r"[0-9a-fA-F]{64}")


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


def with_signer(parsed: ParsedSession, pem: str) -> ParsedSession:
    """The same session for the signer with this public key, before anybody has signed it.

    Guarantees: if the effective access policy names CREATOR and the session has no creator, it is this signer, and the
    session says who reads, which no signer can; else nothing has changed. The normal form has the key as `pem` has it.
    Raises InputError, TooLargeError. Source: session language, section 15.
    """
    if not parsed.names_creator or parsed.session.creator is not None:
        return parsed
    try:
        signed = parse_session(write_yaml({**parsed.normal, "creator": {"signer": pem}}))
    except SessionFormatError as error:
        # Lines and columns would be those of the normal form, which nobody has seen.
        found = (f"{finding.path}: {finding.message}" for finding in error.findings)
        raise InputError("the session cannot be signed with this key as its creator", *found) from None
    return replace(signed, warnings=parsed.warnings, notes=parsed.notes)


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
    reading.name = name
    predecessor = _read_predecessor(reading, fields)
    namespace_hash, salt = _read_namespace_hash(reading, fields), _read_salt(reading, fields)
    secrets, secret_forms = _read_secrets(reading, fields.get("secrets"), updates=predecessor is not None)
    secret_store, secret_config_form = read_secret_store(reading, fields.get("secret_config"))
    volume_nodes = _section(reading, fields.get("volumes"), "volumes")
    volumes = [read_volume(reading, node) for node in volume_nodes]
    _check_unique(reading, [volume.name for volume, _ in volumes], volume_nodes, "volume")
    image_nodes = _section(reading, fields.get("images"), "images")
    images = [read_image(reading, node, [volume.name for volume, _ in volumes]) for node in image_nodes]
    _check_unique(reading, [image.name for image, _ in images], image_nodes, "image")
    security, security_form = read_security(reading, fields.get("security"))
    service_nodes = _section(reading, fields.get("services"), "services")
    demands = _demands(security)
    services = [read_service(reading, node, demands) for node in service_nodes]
    _check_unique(reading, [service.name for service, _ in services], service_nodes, "service")
    board, board_form = read_policy_board(reading, fields.get("policy_board"), secrets)
    boarded = [name for name in language.KEYS["access_policy"] if board is not None and name in board.on]
    policy, policy_form = read_access_policy(reading, fields.get("access_policy"), boarded)
    creator, creator_form = _read_creator(reading, fields, policy)
    session = Session(
        version=version or language.spell(language.V0_1),
        name=name,
        predecessor=predecessor,
        namespace_hash=namespace_hash,
        salt=salt,
        services=tuple(service for service, _ in services),
        images=tuple(image for image, _ in images),
        volumes=tuple(volume for volume, _ in volumes),
        secrets=secrets,
        secret_store=secret_store,
        access_policy=policy,
        policy_board=board,
        security=security,
        creator=creator,
    )
    _warn(reading, fields, session)
    image_forms: list[JsonValue] = [form for _, form in images]
    service_forms: list[JsonValue] = [form for _, form in services]
    volume_forms: list[JsonValue] = [form for _, form in volumes]
    head: dict[str, JsonValue] = {**present(version=version, name=name), "predecessor": _hex(predecessor)}
    rest = present(
        namespace_hash=_hex(namespace_hash),
        salt=_hex(salt),
        images=image_forms,
        secrets=secret_forms,
        secret_config=secret_config_form,
        services=service_forms,
        volumes=volume_forms,
        access_policy=policy_form,
        policy_board=board_form,
        security=security_form,
        creator=creator_form,
    )
    return session, {**head, **rest}


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def _read_predecessor(reading: Reading, fields: Fields) -> bytes | None:
    node, old = fields.get("predecessor"), fields.get("digest")
    if node is None and isinstance(old, Scalar) and _HEX_HASH.fullmatch(old.text):
        node = old
    return None if node is None else reading.digest(node, size=_HASH_BYTES)


def _read_namespace_hash(reading: Reading, fields: Fields) -> bytes | None:
    node = fields.get("namespace_hash")
    if node is None:
        return None
    if "predecessor" in fields:
        reading.findings.error(
            node, "namespace_hash is for the first version, and predecessor for later ones; remove it"
        )
    return reading.digest(node, size=_HASH_BYTES)


def _read_salt(reading: Reading, fields: Fields) -> bytes | None:
    node = fields.get("salt")
    return None if node is None else reading.digest(node, size=_SALT_BYTES)


def _read_secrets(reading: Reading, node: Node | None, *, updates: bool) -> tuple[tuple[Secret, ...], list[JsonValue]]:
    """The secrets and their normal form; afterwards `reading` knows them. updates: the session has a predecessor."""
    nodes = _section(reading, node, "secrets")
    read = [(element, *read_secret(reading, element)) for element in nodes]
    _check_unique(reading, [secret_name(element) or "" for element in nodes], nodes, "secret")
    declared: Declared = {}
    for element, secret, _ in read:
        name = secret_name(element)
        if name:
            declared.setdefault(name, (secret, element))
    reading.secrets = {name: secret_facts(secret) for name, (secret, _) in declared.items()}
    check_references(reading, declared)
    if updates:
        note_new_keys(reading, declared)
    return resolve_references(reading, declared), [form for _, _, form in read]


def _section(reading: Reading, node: Node | None, what: str) -> tuple[Node, ...]:
    return () if node is None else reading.sequence(node, what)


def _check_unique(reading: Reading, names: Sequence[str], nodes: Sequence[Node], what: str) -> None:
    named = ((name, node) for name, node in zip(names, nodes, strict=True) if name)
    for _, again, first in first_repeated(named):
        place = again.values["name"] if isinstance(again, Mapping) else again
        reading.findings.error(place, f"another {what} on line {first.line} has the same name; rename one of them")


def _demands(security: Security | Variable) -> Demands:
    """What the security section means for services, as far as its text tells."""
    if isinstance(security, Variable) or isinstance(security.attestation, Variable):
        return Demands(attested=None)
    attestation = security.attestation
    if isinstance(attestation.mode, Variable):
        return Demands(attested=None)
    ignored = ""
    if attestation.mode != "hardware":
        ignored = f"mode {attestation.mode}"
    elif attestation.must_be_sgx_local is True:
        ignored = "must_be_sgx_local"
    return Demands(attested=attestation.mode != "none", platforms_ignored=ignored)


def _read_creator(
    reading: Reading, fields: Fields, policy: AccessPolicy | Variable
) -> tuple[str | SignerSubject | None, JsonValue]:
    node = fields.get("creator")
    if node is None:
        return None, None
    creator: str | SignerSubject | None
    form: JsonValue
    if isinstance(node, Mapping):
        creator, form = _read_signed_creator(reading, node)
        check_signed(reading, fields.get("access_policy"), node, policy)
    else:
        creator = form = reading.text(node)
        try:
            certificate_key_hash(creator)
        except ValueError as error:
            reading.findings.error(node, f"{error}; leave creator out, the service adds it")
    if not names_creator(policy):
        reading.findings.warning(node, "the access policy does not name CREATOR, so creator is left out; remove it")
        return None, None
    return creator, form


def _read_signed_creator(reading: Reading, node: Mapping) -> tuple[SignerSubject | None, JsonValue]:
    signer = reading.fields(node, "creator").require("signer", "write the public key that signs the session")
    if signer is None:
        return None, None
    return read_signer(reading, signer), {"signer": signer.text if isinstance(signer, Scalar) else None}


def _warn(reading: Reading, fields: Fields, session: Session) -> None:
    images = {image.name for image in session.images}
    nodes = fields.get("services")
    for service, node in zip(session.services, reading.elements(nodes) if nodes is not None else (), strict=False):
        if service.image_name is not None and service.image_name not in images and isinstance(node, Mapping):
            reading.findings.warning(
                node.values["image_name"], "there is no such image, so the program gets no files; add it to images"
            )
    if not _is_guarded(session):
        security = fields.get("security")
        attestation = security.values["attestation"] if isinstance(security, Mapping) else None
        if isinstance(attestation, Mapping):
            reading.findings.warning(
                attestation.values["mode"],
                "whoever reaches the service gets the secrets without evidence; for tests only",
            )


def _is_guarded(session: Session) -> bool:
    """Whether something is asked of every program: evidence, an access token, or a one-time password."""
    attestation = session.attestation
    if isinstance(session.security, Variable) or isinstance(attestation, Variable) or attestation.mode != "none":
        return True
    if session.security.service_access_token is not None or attestation.one_time_password_shared_secret is not None:
        return True
    return all(service.one_time_password_shared_secret is not None for service in session.services)


def _text_of(node: Node | None) -> str | None:
    return node.text if isinstance(node, Scalar) else None
