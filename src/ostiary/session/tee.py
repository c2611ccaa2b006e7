"""Attestation variants for other TEEs than SGX: nodes to `TeeVariant`, and their normal form. Ours, not SCONE's.

Names, sizes and meaning of the measurements are those of `evidence.claims.Claims`. Source: docs/adr/0023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ostiary.session import language
from ostiary.session.model import TeeFactors, TeeVariant, Variable
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonValue
from ostiary.session.reading import Fields, Reading
from ostiary.session.variable import read_variable

MAX_GUEST_SVN = 0xFFFF_FFFF
"""u32 in the report."""
MAX_VMPL = 3

_BYTES: Mapping[str, Mapping[str, int]] = {
    "tdx": dict.fromkeys((name for name in language.KEYS["tdx"] if name not in ("pcrs", "events")), 48),
    "snp": {
        "measurement": 48,
        "host_data": 32,
        "id_key_digest": 48,
        "author_key_digest": 48,
        "family_id": 16,
        "image_id": 16,
    },
    "nitro": dict.fromkeys(language.KEYS["nitro"], 48),
}
BANK_BYTES: Mapping[str, int] = {"sha256": 32, "sha384": 48}
"""Of one PCR, by its bank."""

EVENTS = "events:"
"""What the name of a PCR begins with where a variant names the digests that may have been extended into it."""

_Written = tuple[str, tuple[bytes | Variable, ...]]


def measurement_bytes(tee: str, name: str) -> int:
    """How long a measurement is, by its name in `TeeFactors`."""
    return BANK_BYTES[pcr_of(name).partition(":")[0]] if ":" in name else _BYTES[tee][name]


def pcr_of(name: str) -> str:
    """Bank and number of the PCR that a name in `TeeFactors` is about, whether it is its value or its events."""
    return name.removeprefix(EVENTS)


def steps_to(name: str) -> list[str]:
    """Where a measurement stands in the text below its TEE: `sha256:4` at pcrs, sha256, 4."""
    if ":" not in name:
        return [name]
    return ["events" if name.startswith(EVENTS) else "pcrs", *pcr_of(name).split(":")]


def telling(tee: str, factors: TeeFactors) -> frozenset[str]:
    """Those factors by which a variant says which program it admits; without any it must admit none.

    One that zeros fulfil says nothing, for evidence that lacks a measurement has zeros in its place. As PCR0 of Nitro
    they count: enclaves in debug mode have them, and nothing but `debug-mode` admits those.
    """
    given = {
        pcr_of(name)
        for name, values in factors.measurements
        if values and (name == "pcr0" or not any(_is_zero(value) for value in values))
    }
    return frozenset().union(*(together for together in language.IDENTIFYING[tee] if together <= given))


def read_tee_variant(reading: Reading, tee: str, node: Node) -> tuple[TeeVariant, JsonValue]:
    """The variant whose factors `node` has, which stands under the key `tee`."""
    variable = read_variable(reading, node)
    if variable is not None:
        return TeeVariant(tee=tee, factors=variable), {tee: str(variable.placeholder)}
    fields = reading.fields(node, tee)
    form: dict[str, JsonValue] = {}
    found = [*_read_measurements(reading, tee, fields, form)]
    if "pcrs" in language.KEYS[tee]:
        found += _read_pcrs(reading, fields, "pcrs", form)
        found += _read_pcrs(reading, fields, "events", form)
    factors = TeeFactors(measurements=tuple(found))
    if tee == "snp":
        factors = replace(
            factors,
            guest_svn_min=_read_number(reading, fields, "guest_svn_min", MAX_GUEST_SVN, form),
            vmpl_max=_read_number(reading, fields, "vmpl_max", MAX_VMPL, form),
        )
    if not fields.mistaken and not any(fields.near(name) for name in language.KEYS[tee]):
        _check(reading, tee, node, factors)
    return TeeVariant(tee=tee, factors=factors), {tee: form}


def _read_measurements(reading: Reading, tee: str, fields: Fields, form: dict[str, JsonValue]) -> Iterator[_Written]:
    for name, size in _BYTES.get(tee, {}).items():
        node = fields.get(name)
        if node is not None:
            values, form[name] = _read_values(reading, node, size)
            yield name, values


def _read_pcrs(reading: Reading, fields: Fields, key: str, form: dict[str, JsonValue]) -> Iterator[_Written]:
    node = fields.get(key)
    if node is None:
        return
    banks = reading.fields(node, "tpm pcrs")
    written: dict[str, JsonValue] = {}
    for bank, size in BANK_BYTES.items():
        bank_node = banks.get(bank)
        if bank_node is None:
            continue
        pcrs = reading.fields(bank_node, f"{bank} PCRs", language.PCRS)
        of_bank: dict[str, JsonValue] = {}
        for number in language.PCRS:
            pcr = pcrs.get(number)
            if pcr is not None:
                values, of_bank[number] = _read_values(reading, pcr, size)
                yield f"{EVENTS if key == 'events' else ''}{bank}:{number}", values
        if not of_bank and not pcrs.mistaken:
            reading.findings.error(bank_node, "no PCR, which would demand nothing; name one, or leave the bank out")
        written[bank] = of_bank
    form[key] = written


def _read_values(reading: Reading, node: Node, size: int) -> tuple[tuple[bytes | Variable, ...], list[JsonValue]]:
    """One value or a list of them, any of which is meant."""
    elements = reading.elements(node)
    if isinstance(node, SequenceNode) and not elements:
        reading.findings.error(node, "the list of measurements is empty, which would admit nobody; add one")
        return (_stand_in(size),), []
    values = tuple(read_variable(reading, element) or _read_value(reading, element, size) for element in elements)
    return values, [str(value.placeholder) if isinstance(value, Variable) else value.hex() for value in values]


def _read_value(reading: Reading, node: Node, size: int) -> bytes:
    value = reading.digest(node, size=size)
    mistaken = not any(value) and not (isinstance(node, Scalar) and node.text == "0" * 2 * size)
    return _stand_in(size) if mistaken else value


def _stand_in(size: int) -> bytes:
    """For a mistake: zeros, which mean something here, would be one more."""
    return b"\xff" * size


def _read_number(
    reading: Reading, fields: Fields, name: str, most: int, form: dict[str, JsonValue]
) -> int | Variable | None:
    node = fields.get(name)
    if node is None:
        return None
    variable = read_variable(reading, node)
    if variable is not None:
        form[name] = str(variable.placeholder)
        return variable
    number = reading.integer(node, least=0, most=most)
    form[name] = number
    return number


def _check(reading: Reading, tee: str, node: Node, factors: TeeFactors) -> None:
    """Whether the variant says which program it admits, and all of it."""
    given = {name for name, _ in factors.measurements}
    if not telling(tee, factors):
        reading.findings.error(node, f"this would admit any program; {_NEEDED[tee]}; zeros name none")
    elif tee == "tdx" and not given & {"rtmr1", "rtmr2"} and not telling("tpm", factors):
        reading.findings.warning(
            node, "mrtd says nothing about the kernel and its command line; add rtmr1 and rtmr2, which measure them"
        )
    elif tee == "snp" and not given & {"measurement", "family_id", "image_id"}:
        reading.findings.note(node, "every guest of that signer is admitted; add family_id, image_id or measurement")
    elif tee == "nitro" and any(_is_zero(value) for value in dict(factors.measurements).get("pcr0", ())):
        reading.findings.warning(node, "zeros are what every enclave in debug mode has; any such is admitted")
    elif tee == "nitro" and "pcr0" not in given:
        reading.findings.note(node, "pcr8 admits every image of that signer, older ones too; pcr0 admits one")


def _is_zero(value: bytes | Variable) -> bool:
    return not isinstance(value, Variable) and not any(value)


_NEEDED = {
    "tdx": "give mrtd, without which any firmware extends the other registers as it likes",
    "snp": "give measurement, id_key_digest or author_key_digest",
    "nitro": "give pcr0, the image, or pcr8, its signer",
    "tpm": "give PCR 4, or PCR 7 with 9 or 11 of the same bank",
}
