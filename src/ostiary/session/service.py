"""The services of a session: nodes to `Service`, and their normal form. Source: session language, sections 5 and 6."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ostiary.session import language
from ostiary.session.command import split_at_blanks, split_with_quotes
from ostiary.session.findings import quote
from ostiary.session.model import HostArgument, HostVariable, Service, Signer, Variant
from ostiary.session.name import read_image_name, read_segment
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.path_text import read_directory
from ostiary.session.placeholder import Template
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.template import SecretFacts, read_template

MAX_HOST_POSITION = 10_000
MAX_VERSION = 65_535
"""Of `isvprodid` and `isvsvn*`: u16 in the evidence."""

_MEASUREMENT_BYTES = 32
_HOST_ARGUMENT = re.compile(r"@@0*([0-9]+)")
_EMBEDDED_HOST_ARGUMENT = re.compile(r"@@[0-9]")
_HOST_VARIABLE = "\\@\\@"


def read_service(
    reading: Reading, node: Node, secrets: Mapping[str, SecretFacts], *, attested: bool
) -> tuple[Service, JsonObject]:
    """One service. attested: the session's mode demands evidence, so the service must say whose it admits."""
    fields = reading.fields(node, "service")
    name_node = fields.require("name", "give the service a name")
    name = "" if name_node is None else read_segment(reading, name_node)
    image = fields.get("image_name")
    image_name = None if image is None else read_image_name(reading, image)
    command, command_form = _read_command(reading, fields.get("command"), secrets)
    environment, environment_form = _read_environment(reading, fields.get("environment"), secrets)
    pwd = fields.get("pwd")
    if pwd is None:
        reading.findings.note(node, "no pwd, so the program starts in /", path=node.path.child("pwd"))
    variants, measurements, attestation_form = _read_attestation(reading, fields, attested=attested)
    _check_persistency(reading, fields.get("persistency"))
    service = Service(
        name=name,
        image_name=image_name,
        command=command,
        environment=environment,
        pwd=None if pwd is None else read_directory(reading, pwd),
        attestation=variants,
    )
    form = present(
        name=name,
        image_name=image_name,
        mrenclaves=measurements,
        environment=environment_form,
        command=command_form,
        pwd=pwd.text if isinstance(pwd, Scalar) else None,
        persistency="None",
        attestation=attestation_form,
    )
    return service, form


def _read_command(
    reading: Reading, node: Node | None, secrets: Mapping[str, SecretFacts]
) -> tuple[tuple[Template | HostArgument, ...], JsonValue]:
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
    return tuple(_read_word(reading, word_node, word, secrets) for word_node, word in words), form


def _split(reading: Reading, node: Node, text: str) -> tuple[str, ...]:
    split = split_at_blanks if reading.level < language.QUOTING_LEVEL else split_with_quotes
    try:
        return split(text)
    except ValueError as error:
        reading.findings.error(node, str(error))
        return (text,)


def _read_word(reading: Reading, node: Node, word: str, secrets: Mapping[str, SecretFacts]) -> Template | HostArgument:
    host = _HOST_ARGUMENT.fullmatch(word)
    if host is not None:
        reading.require_level(node, "a host argument", language.HOST_LEVEL)
        return HostArgument(position=_read_position(reading, node, host[1]))
    if _EMBEDDED_HOST_ARGUMENT.search(word):
        reading.findings.warning(
            node, "@@ and a number inside a longer argument stays as it is; a host argument is a whole argument"
        )
    return read_template(reading, node, word, secrets, raw_allowed=False)


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
    reading: Reading, node: Node | None, secrets: Mapping[str, SecretFacts]
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
            variables[name] = (name, read_template(reading, value_node, value, secrets, raw_allowed=False))
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
    reading: Reading, fields: Fields, *, attested: bool
) -> tuple[tuple[Variant, ...], list[JsonValue], list[JsonValue]]:
    """The variants, and what is written under `mrenclaves` and `attestation`."""
    old, new = fields.get("mrenclaves"), fields.get("attestation")
    if old is not None and new is not None:
        reading.findings.error(old, "mrenclaves and attestation exclude each other; keep attestation")
    variants: list[Variant] = []
    old_form: list[JsonValue] = []
    new_form: list[JsonValue] = []
    if old is not None:
        measurements = _read_measurements(reading, old)
        variants.append(Variant(mrenclave=measurements))
        old_form += [measurement.hex() for measurement in measurements]
        reading.findings.note(old, "mrenclaves is deprecated; write attestation: {mrenclave: […]} (from version 0.3.7)")
    if new is not None:
        for element in _variant_nodes(reading, new):
            variant, form = _read_variant(reading, element)
            variants.append(variant)
            new_form.append(form)
    meant = fields.mistaken or fields.near("mrenclaves") or fields.near("attestation")
    if old is None and new is None and attested and not meant:
        reading.findings.error(
            fields.node,
            "the service does not say which programs it admits; add attestation: {mrenclave: …} or mrenclaves: […]",
        )
    return tuple(variants), old_form, new_form


def _variant_nodes(reading: Reading, node: Node) -> tuple[Node, ...]:
    elements = reading.elements(node)
    if not elements:
        reading.findings.error(node, "the list of variants is empty, which would admit nobody; add one")
    return elements


def _read_measurements(reading: Reading, node: Node) -> tuple[bytes, ...]:
    elements = reading.elements(node)
    if not elements:
        reading.findings.error(node, "the list of measurements is empty, which would admit nobody; add one")
    return tuple(reading.digest(element, size=_MEASUREMENT_BYTES) for element in elements)


def _read_variant(reading: Reading, node: Node) -> tuple[Variant, JsonObject]:
    fields = reading.fields(node, "attestation variant")
    mrenclave, signer = fields.get("mrenclave"), fields.get("signer")
    if mrenclave is None and signer is None and not fields.mistaken and not fields.near("mrenclave"):
        reading.findings.error(node, "a variant without factors would admit every program; give mrenclave or signer")
    measurements = () if mrenclave is None else _read_measurements(reading, mrenclave)
    signed, signer_form = (None, None) if signer is None else _read_signer(reading, signer)
    form = present(mrenclave=[measurement.hex() for measurement in measurements], signer=signer_form)
    return Variant(mrenclave=measurements, signer=signed), form


def _read_signer(reading: Reading, node: Node) -> tuple[Signer, JsonObject]:
    fields = reading.fields(node, "signer")
    mrsigner_node = fields.require("mrsigner", f"write its {2 * _MEASUREMENT_BYTES} hex digits")
    mrsigner = (
        bytes(_MEASUREMENT_BYTES) if mrsigner_node is None else reading.digest(mrsigner_node, size=_MEASUREMENT_BYTES)
    )
    product_node = fields.require("isvprodid", "a signer signs many programs; write the product's number")
    product = 0 if product_node is None else _read_version(reading, product_node)
    exact, least, most = (_optional_version(reading, fields.get(key)) for key in ("isvsvn", "isvsvn_min", "isvsvn_max"))
    exact_node, least_node = fields.get("isvsvn"), fields.get("isvsvn_min")
    if exact_node is not None and (least is not None or most is not None):
        reading.findings.error(exact_node, "isvsvn and a bound exclude each other; keep isvsvn, or its bounds")
    if least_node is not None and least is not None and most is not None and least > most:
        reading.findings.error(least_node, f"isvsvn_min is {least} and above isvsvn_max, {most}; nothing would match")
    signer = Signer(
        mrsigner=mrsigner,
        isvprodid=product,
        isvsvn_min=least if exact is None else exact,
        isvsvn_max=most if exact is None else exact,
    )
    form = present(mrsigner=mrsigner.hex(), isvprodid=product, isvsvn=exact, isvsvn_min=least, isvsvn_max=most)
    return signer, form


def _optional_version(reading: Reading, node: Node | None) -> int | None:
    return None if node is None else _read_version(reading, node)


def _read_version(reading: Reading, node: Node) -> int:
    if isinstance(node, Scalar) and node.text.startswith("$$SCONE:"):
        reading.not_yet(node, "a variable in this place")
        return 0
    return reading.integer(node, least=0, most=MAX_VERSION)


def _check_persistency(reading: Reading, node: Node | None) -> None:
    if node is not None and not (isinstance(node, Scalar) and node.text == "None"):
        reading.findings.error(node, f"found {describe(node)}, expected None; leave the key out")
