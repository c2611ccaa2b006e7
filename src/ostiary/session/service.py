"""The services of a session: nodes to `Service`, and their normal form. Source: session language, sections 5 and 6."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from ostiary.session import language
from ostiary.session.command import split_at_blanks, split_with_quotes
from ostiary.session.findings import quote, template_hint
from ostiary.session.model import HostArgument, HostVariable, Service, Signer, TeeVariant, Variable, Variant
from ostiary.session.name import read_image_name, read_segment
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.otp import read_otp_secret
from ostiary.session.path_text import read_directory, read_file_path
from ostiary.session.placeholder import Template
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.shield import check_network_shield
from ostiary.session.tee import read_tee_variant
from ostiary.session.template import read_template
from ostiary.session.variable import read_variable
from ostiary.session.volume import TAG_BYTES, read_key

MAX_HOST_POSITION = 10_000
MAX_VERSION = 65_535
"""Of `isvprodid` and `isvsvn*`: u16 in the evidence."""

_MEASUREMENT_BYTES = 32
_HOST_ARGUMENT = re.compile(r"@@0*([0-9]+)")
_LIKE_HOST_ARGUMENT = re.compile(r"@@[0-9]|^@@")
_HOST_VARIABLE = "\\@\\@"
_QE_ID = "INTEL_QE_ID:"
_PLATFORM = re.compile(rf"{_QE_ID}([0-9a-fA-F]{{32}})")
_OLD_PLATFORM = re.compile(r"[0-9a-fA-F]{64}")
_DEFAULT_FSPF_POLICY = "rollback_protected_reinitializable"
_EFFECTIVE_SETTINGS = ("SCONE_NETWORK_SHIELD", "SCONE_PIPE", "SCONE_SOCKETPAIR")


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What the security section means for services.

    attested: evidence is demanded, so that a service must say whose it admits; None: a variable will tell.
    platforms_ignored: why `platforms` has no effect, "" if it has.
    """

    attested: bool | None = True
    platforms_ignored: str = ""


def read_service(reading: Reading, node: Node, demands: Demands) -> tuple[Service, JsonObject]:
    """One service."""
    fields = reading.fields(node, "service")
    name_node = fields.require("name", "give the service a name")
    name = "" if name_node is None else read_segment(reading, name_node)
    image = fields.get("image_name")
    image_name = None if image is None else read_image_name(reading, image)
    command, command_form = _read_command(reading, fields.get("command"))
    environment, environment_form = _read_environment(reading, fields.get("environment"))
    pwd = fields.get("pwd")
    if pwd is None:
        reading.findings.note(node, "no pwd, so the program starts in /", path=node.path.child("pwd"))
    file_system, file_system_form = _read_file_system(reading, fields)
    variants, measurements, attestation_form = _read_attestation(reading, fields, attested=demands.attested)
    platforms, platform_forms = _read_platforms(reading, fields.get("platforms"), demands)
    otp = fields.get("one_time_password_shared_secret")
    _check_persistency(reading, fields.get("persistency"))
    service = Service(
        name=name,
        image_name=image_name,
        command=command,
        environment=environment,
        pwd=None if pwd is None else read_directory(reading, pwd),
        attestation=variants,
        platforms=platforms,
        one_time_password_shared_secret=None if otp is None else read_otp_secret(reading, otp),
    )
    form = present(
        name=name,
        image_name=image_name,
        mrenclaves=measurements,
        platforms=platform_forms,
        environment=environment_form,
        command=command_form,
        pwd=pwd.text if isinstance(pwd, Scalar) else None,
        **file_system_form,
        persistency="None",
        attestation=attestation_form,
        one_time_password_shared_secret=otp.text if isinstance(otp, Scalar) else None,
    )
    return replace(service, **file_system), form


class _FileSystem(TypedDict, total=False):
    fspf_path: str
    fspf_key: bytes | Variable
    fspf_tag: bytes
    fspf_update_policy: str


def _read_file_system(reading: Reading, fields: Fields) -> tuple[_FileSystem, dict[str, JsonValue]]:
    """The main file system: what is given of it, and its normal form."""
    path, key, tag, policy = (fields.get(f"fspf_{part}") for part in ("path", "key", "tag", "update_policy"))
    read: _FileSystem = {}
    form: dict[str, JsonValue] = {}
    if path is not None:
        read["fspf_path"] = read_file_path(reading, path)
        form["fspf_path"] = path.text if isinstance(path, Scalar) else None
    if key is not None:
        read["fspf_key"], form["fspf_key"] = read_key(reading, key, level=language.SERVICE_KEY_VARIABLE_LEVEL)
    if tag is not None:
        read["fspf_tag"] = reading.digest(tag, size=TAG_BYTES)
        form["fspf_tag"] = read["fspf_tag"].hex()
    if policy is not None:
        read["fspf_update_policy"] = reading.choice(policy, language.FSPF_UPDATE_POLICIES, "fspf_update_policy")
        if read["fspf_update_policy"] != _DEFAULT_FSPF_POLICY:
            form["fspf_update_policy"] = read["fspf_update_policy"]
    _check_file_system(reading, fields, read)
    return read, form


def _check_file_system(reading: Reading, fields: Fields, read: _FileSystem) -> None:
    if "fspf_path" not in read:
        for part in sorted(read.keys()):
            reading.findings.error(fields.node, f"{part} belongs to a main file system; add fspf_path, or remove it")
        return
    needed = ["fspf_key"]
    if read.get("fspf_update_policy") != "no_rollback_protection":
        needed.append("fspf_tag")
    for part in needed:
        if part not in read and not fields.near(part):
            hint = "" if part == "fspf_key" else ", or fspf_update_policy: no_rollback_protection"
            reading.findings.error(
                fields.node,
                f"{part} is missing; a main file system needs fspf_key and fspf_tag{hint}",
                path=fields.node.path.child(part),
            )


def _read_platforms(
    reading: Reading, node: Node | None, demands: Demands
) -> tuple[tuple[bytes | Variable, ...], list[JsonValue]]:
    """The platforms that are admitted, and how they are written."""
    if node is None:
        return (), []
    if isinstance(node, Scalar) and node.is_null:
        reading.findings.error(node, "no platform, which would admit all; name one, or leave platforms out")
        return (), []
    elements = reading.elements(node)
    if not elements:
        reading.findings.error(node, "the list of platforms is empty, which would admit none; add one, or leave it out")
    if demands.platforms_ignored:
        reading.findings.warning(node, f"platforms has no effect with {demands.platforms_ignored}; remove it")
    platforms = [_read_platform(reading, element) for element in elements]
    return tuple(platform for platform, _ in platforms), [form for _, form in platforms]


def _read_platform(reading: Reading, node: Node) -> tuple[bytes | Variable, str]:
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    text = reading.text(node)
    if _OLD_PLATFORM.fullmatch(text):
        reading.findings.warning(
            node,
            f"a key of SCONE's own quoting enclave, which is no more, never matches; write {_QE_ID}<32 hex digits>",
        )
        return bytes.fromhex(text), text.lower()
    found = _PLATFORM.fullmatch(text)
    if found is not None:
        return bytes.fromhex(found[1]), f"{_QE_ID}{found[1].lower()}"
    if isinstance(node, Scalar) and not node.is_null:
        reading.findings.error(
            node, f"found {describe(node)}, expected {_QE_ID} and 32 hex digits{template_hint(text)}"
        )
    return b"", ""


def _read_command(reading: Reading, node: Node | None) -> tuple[tuple[Template | HostArgument, ...], JsonValue]:
    """The words, and the command as it is written: text or list."""
    if node is None:
        return (), None
    words: list[tuple[Node, str]]
    form: JsonValue
    if isinstance(node, SequenceNode):
        words = [(item, reading.text(item)) for item in node.items]
        form = [word for _, word in words]
    else:
        text = reading.text(node)
        words = [(node, word) for word in _split(reading, node, text)]
        form = text
    if not words and not isinstance(node, MappingNode):
        reading.findings.error(node, "the command is empty; write it, or leave the key out")
    _check_host_arguments(reading, words)
    return tuple(_read_word(reading, word_node, word) for word_node, word in words), form


def _split(reading: Reading, node: Node, text: str) -> tuple[str, ...]:
    split = split_at_blanks if reading.level < language.QUOTING_LEVEL else split_with_quotes
    try:
        return split(text)
    except ValueError as error:
        reading.findings.error(node, str(error))
        return (text,)


def _read_word(reading: Reading, node: Node, word: str) -> Template | HostArgument:
    host = _HOST_ARGUMENT.fullmatch(word)
    if host is not None:
        reading.require_level(node, "a host argument", language.HOST_LEVEL)
        return HostArgument(position=_read_position(reading, node, host[1]))
    if _LIKE_HOST_ARGUMENT.search(word):
        reading.findings.warning(
            node, "@@ inside a longer argument, or before no number, stays as it is; a host argument is @@1 by itself"
        )
    return read_template(reading, node, word, raw_allowed=False)


def _read_position(reading: Reading, node: Node, digits: str) -> int:
    """digits: without leading zeros."""
    position = int(digits) if len(digits) <= len(str(MAX_HOST_POSITION)) else MAX_HOST_POSITION + 1
    if not 1 <= position <= MAX_HOST_POSITION:
        reading.findings.error(node, f"host arguments count from @@1 to @@{MAX_HOST_POSITION}, found another number")
    return position


def _check_host_arguments(reading: Reading, words: Sequence[tuple[Node, str]]) -> None:
    seen: set[str] = set()
    for node, word in words:
        host = _HOST_ARGUMENT.fullmatch(word)
        if host is None:
            continue
        if host[1] in seen:
            reading.findings.error(
                node, f"the host argument {quote(word)} is there twice; each position may stand once"
            )
        seen.add(host[1])


def _read_environment(
    reading: Reading, node: Node | None
) -> tuple[tuple[tuple[str, Template | HostVariable], ...], JsonObject]:
    """The variables, and as they are written; both sorted by the bytes of their names, as the order means nothing."""
    if node is None:
        return (), {}
    if not isinstance(node, MappingNode):
        reading.findings.error(
            node,
            f"found {'a list' if isinstance(node, SequenceNode) else 'a text'}, environment is a mapping; write A: b",
        )
        return (), {}
    variables: dict[str, tuple[str, Template | HostVariable]] = {}
    form: dict[str, str] = {}
    for name, value_node in node.values.items():
        is_host = name.startswith(_HOST_VARIABLE)
        value = _read_variable_text(reading, value_node, silent=is_host)
        if not name and not value:
            reading.findings.warning(node.keys[name], "a variable with neither name nor value is dropped; remove it")
            continue
        form[name] = value
        _check_variable_name(reading, node, name)
        if is_host:
            host_name = name.removeprefix(_HOST_VARIABLE)
            variables[name] = (host_name, HostVariable(name=host_name))
        else:
            variables[name] = (name, read_template(reading, value_node, value, raw_allowed=False))
        if name.startswith("SCONE_") and not name.startswith(_EFFECTIVE_SETTINGS):
            reading.findings.note(node.keys[name], "the program sees this variable; as a setting it has no effect here")
    check_network_shield(reading, node)
    names = sorted(form, key=str.encode)
    return tuple(variables[name] for name in names), {name: form[name] for name in names}


def _read_variable_text(reading: Reading, node: Node, *, silent: bool) -> str:
    if isinstance(node, Scalar) and node.is_null:
        if not silent:
            reading.findings.warning(node, 'no value, read as the empty text; write ""')
        return ""
    return reading.text(node)


def _check_variable_name(reading: Reading, node: MappingNode, name: str) -> None:
    key = node.keys[name]
    host_name = name.removeprefix(_HOST_VARIABLE)
    if not host_name:
        reading.findings.error(key, "the name of the variable is empty; write one")
    if "=" in name:
        reading.findings.error(key, f"the name {quote(name)} has a =, which no variable's name can have")
    if name != host_name:
        reading.require_level(key, "a host variable", language.HOST_LEVEL)
        if host_name in node.values:
            reading.findings.error(key, f"{quote(host_name)} is also set by the session; keep one of the two")
    elif name.startswith("@@"):
        reading.findings.error(key, f"found {quote(name)}; the host's variable is written \\@\\@{name[2:62]}")


def _read_attestation(
    reading: Reading, fields: Fields, *, attested: bool | None
) -> tuple[tuple[Variant | TeeVariant | Variable, ...], list[JsonValue], list[JsonValue]]:
    """The variants, and what is written under `mrenclaves` and `attestation`."""
    old, new = fields.get("mrenclaves"), fields.get("attestation")
    if old is not None and new is not None:
        reading.findings.error(old, "mrenclaves and attestation exclude each other; keep attestation")
    variants: list[Variant | TeeVariant | Variable] = []
    old_form: list[JsonValue] = []
    new_form: list[JsonValue] = []
    if old is not None:
        measurements, old_form = _read_measurements(reading, old)
        variants.append(Variant(mrenclave=measurements))
        reading.findings.note(old, "mrenclaves is deprecated; write attestation: {mrenclave: […]} (from version 0.3.7)")
    if new is not None:
        for element in _variant_nodes(reading, new):
            variant, form = _read_variant(reading, element)
            variants.append(variant)
            new_form.append(form)
    meant = fields.mistaken or fields.near("mrenclaves") or fields.near("attestation")
    if old is None and new is None and attested is not False and not meant:
        say = reading.findings.error if attested else reading.findings.warning
        say(
            fields.node,
            "the service does not say which programs it admits; add attestation: {mrenclave: …} or mrenclaves: […]",
        )
    return tuple(variants), old_form, new_form


def _variant_nodes(reading: Reading, node: Node) -> tuple[Node, ...]:
    elements = reading.elements(node)
    if not elements:
        reading.findings.error(node, "the list of variants is empty, which would admit nobody; add one")
    return elements


def _read_measurements(reading: Reading, node: Node) -> tuple[tuple[bytes | Variable, ...], list[JsonValue]]:
    elements = reading.elements(node)
    if not elements:
        reading.findings.error(node, "the list of measurements is empty, which would admit nobody; add one")
    measurements = [_read_measurement(reading, element) for element in elements]
    return tuple(measurements), [_written(measurement) for measurement in measurements]


def _read_measurement(reading: Reading, node: Node) -> bytes | Variable:
    return read_variable(reading, node) or reading.digest(node, size=_MEASUREMENT_BYTES)


def _written(value: bytes | Variable) -> str:
    return str(value.placeholder) if isinstance(value, Variable) else value.hex()


def _read_variant(reading: Reading, node: Node) -> tuple[Variant | TeeVariant | Variable, JsonValue]:
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    fields = reading.fields(node, "attestation variant")
    mrenclave, signer = fields.get("mrenclave"), fields.get("signer")
    others = [(tee, factors) for tee in language.TEES if (factors := fields.get(tee)) is not None]
    if others:
        if len(others) > 1 or mrenclave is not None or signer is not None:
            reading.findings.error(
                node, "a variant is of one TEE, and mrenclave and signer are of SGX; write a variant each"
            )
        return read_tee_variant(reading, *others[0])
    if mrenclave is None and signer is None and not fields.mistaken and not fields.near("mrenclave"):
        reading.findings.error(
            node,
            "a variant without factors would admit every program; give mrenclave or signer, or tdx, snp, nitro or tpm",
        )
    measurements, measurement_forms = ((), []) if mrenclave is None else _read_measurements(reading, mrenclave)
    signed, signer_form = (None, None) if signer is None else _read_signer(reading, signer)
    form = present(mrenclave=measurement_forms, signer=signer_form)
    return Variant(mrenclave=measurements, signer=signed), form


def _read_signer(reading: Reading, node: Node) -> tuple[Signer | Variable, JsonValue]:
    variable = read_variable(reading, node)
    if variable is not None:
        return variable, str(variable.placeholder)
    fields = reading.fields(node, "signer")
    mrsigner_node = fields.require("mrsigner", f"write its {2 * _MEASUREMENT_BYTES} hex digits")
    mrsigner = bytes(_MEASUREMENT_BYTES) if mrsigner_node is None else _read_measurement(reading, mrsigner_node)
    product_node = fields.require("isvprodid", "a signer signs many programs; write the product's number")
    product = 0 if product_node is None else _read_version(reading, product_node)
    exact, least, most = (_optional_version(reading, fields.get(key)) for key in ("isvsvn", "isvsvn_min", "isvsvn_max"))
    exact_node, least_node = fields.get("isvsvn"), fields.get("isvsvn_min")
    if exact_node is not None and (least is not None or most is not None):
        reading.findings.error(exact_node, "isvsvn and a bound exclude each other; keep isvsvn, or its bounds")
    if least_node is not None and isinstance(least, int) and isinstance(most, int) and least > most:
        reading.findings.error(least_node, f"isvsvn_min is {least} and above isvsvn_max, {most}; nothing would match")
    signer = Signer(
        mrsigner=mrsigner,
        isvprodid=product,
        isvsvn_min=least if exact is None else exact,
        isvsvn_max=most if exact is None else exact,
    )
    form = present(
        mrsigner=_written(mrsigner),
        isvprodid=_number(product),
        isvsvn=_number(exact),
        isvsvn_min=_number(least),
        isvsvn_max=_number(most),
    )
    return signer, form


def _number(value: int | Variable | None) -> int | str | None:
    return str(value.placeholder) if isinstance(value, Variable) else value


def _optional_version(reading: Reading, node: Node | None) -> int | Variable | None:
    return None if node is None else _read_version(reading, node)


def _read_version(reading: Reading, node: Node) -> int | Variable:
    variable = read_variable(reading, node)
    return reading.integer(node, least=0, most=MAX_VERSION) if variable is None else variable


def _check_persistency(reading: Reading, node: Node | None) -> None:
    if node is not None and not (isinstance(node, Scalar) and node.text == "None"):
        reading.findings.error(node, f"found {describe(node)}, expected None; leave the key out")
