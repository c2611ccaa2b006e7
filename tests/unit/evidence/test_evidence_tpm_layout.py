"""Structures of a TPM, bytes to fields: quotes, signatures, public areas, event logs, HCL reports, the wire form."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.simulators.tpm import (
    ATTRIBUTES,
    NONCE,
    Tpm,
    event,
    hcl_report,
    old_event,
    runtime_claims,
    selections,
    sized,
    spec_id,
    value,
    wire,
)

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.tpm.eventlog import MAX_EVENTS, MAX_LOG_BYTES, parse_event_log, replay
from ostiary.evidence.tpm.hcl import MAX_HCL_BYTES, parse_hcl_report
from ostiary.evidence.tpm.layout import (
    MAX_QUOTE_BYTES,
    parse_public_area,
    parse_quote,
    parse_signature,
)
from ostiary.evidence.tpm.wire import (
    MAX_ENDORSEMENTS_BYTES,
    MAX_EVIDENCE_BYTES,
    Endorsements,
    parse_endorsements,
    parse_evidence,
    parse_pcrs,
)

TPM = Tpm()
RSA = Tpm(key=rsa.generate_private_key(65537, 2048), scheme="rsassa")
QUOTE = TPM.attest({"sha256": (0, 7, 23)})
# magic 4, type 2, size and name 36, size and nonce 7, clock 17, firmware 8
SELECTION = 74
MAGIC = bytes.fromhex("ff544347 8018")


def quote(*, body: bytes = QUOTE[SELECTION:], safe: int = 1) -> bytes:
    """A quote with another selection and digest."""
    return QUOTE[: SELECTION - 9] + bytes([safe]) + QUOTE[SELECTION - 8 : SELECTION] + body


def test_fields_of_a_quote() -> None:
    parsed = parse_quote(QUOTE)
    assert parsed.qualified_signer == TPM.qualified_name
    assert parsed.nonce == NONCE
    assert (parsed.clock, parsed.reset_count, parsed.restart_count, parsed.safe) == (1234, 5, 6, True)
    assert parsed.firmware_version == bytes(range(8))
    assert [(selection.bank, selection.pcrs) for selection in parsed.selections] == [("sha256", (0, 7, 23))]
    assert parsed.pcr_digest == hashlib.sha256(value(0) + value(7) + value(23)).digest()
    assert parsed.signed == QUOTE == quote()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "magic at 0x0: the data end after 0 bytes, expected 4 bytes here"),
        (bytes(MAX_QUOTE_BYTES + 1), "TPM quote: 1025 bytes, expected at most 1024"),
        (b"\x00" + QUOTE[1:], "magic at 0x0: 0x544347, expected 0xff544347"),
        (MAGIC[:5] + b"\x17" + QUOTE[6:], "type at 0x4: 0x8017, expected 0x8018"),
        (MAGIC + sized(bytes(67)), "qualifiedSigner at 0x6: 67 bytes, expected at most 66"),
        (MAGIC + sized(b"") + sized(bytes(67)), "extraData at 0x8: 67 bytes, expected at most 66"),
        (quote(safe=2), "safe at 0x41: 2, expected 0 or 1"),
        (quote(body=struct.pack(">I", 0)), "pcrSelect at 0x4a: 0 selections, expected 1 to 8"),
        (quote(body=struct.pack(">I", 9)), "pcrSelect at 0x4a: 9 selections, expected 1 to 8"),
        (quote(body=struct.pack(">IH", 1, 0x12)), "pcrSelect.hash at 0x4e: 0x0012, expected SHA-1, SHA-256"),
        (quote(body=struct.pack(">IHB", 1, 0xB, 0)), "pcrSelect.sizeofSelect at 0x50: 0, expected 1 to 4"),
        (quote(body=struct.pack(">IHB", 1, 0xB, 5)), "pcrSelect.sizeofSelect at 0x50: 5, expected 1 to 4"),
        (quote(body=selections({"sha256": ()})), "no PCR, expected a quote over one PCR or more"),
        (quote(body=struct.pack(">I", 2) + 2 * selections({"sha256": (1,)})[4:]), "a bank twice, expected each bank"),
        (quote(body=selections({"sha256": (1,)}) + sized(bytes(65))), "pcrDigest at 0x54: 65 bytes, expected at most"),
        (QUOTE + b"\0", "end at 0x76: 1 bytes more, expected none"),
        (QUOTE[:-1], "pcrDigest at 0x56: the data end after 117 bytes, expected 32 bytes here"),
    ],
)
def test_what_is_no_quote_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says.replace("(", r"\(")):
        parse_quote(data)


def test_a_selection_may_be_shorter_or_longer_than_usual() -> None:
    body = struct.pack(">IHB", 1, 0xB, 4) + b"\x01\x00\x00\x80" + sized(bytes(32))
    assert parse_quote(quote(body=body)).selections[0].pcrs == (0, 31)
    body = struct.pack(">IHB", 1, 0xB, 1) + b"\x81" + sized(bytes(32))
    assert parse_quote(quote(body=body)).selections[0].pcrs == (0, 7)


def test_signatures_with_and_without_a_header() -> None:
    ecdsa = parse_signature(TPM.sign(b"x"))
    assert (ecdsa.scheme, ecdsa.hash, ecdsa.rsa, ecdsa.raw) == ("ecdsa", "sha256", b"", False)
    assert ecdsa.r > 0 < ecdsa.s
    signature = RSA.sign(b"x")
    assert parse_signature(signature).rsa == signature[6:]
    raw = parse_signature(signature[6:])
    assert (raw.scheme, raw.hash, raw.rsa, raw.raw) == ("rsassa", "sha256", signature[6:], True)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "sigAlg at 0x0: the data end after 0 bytes"),
        (bytes(1025), "TPM signature: 1025 bytes, expected at most 1024"),
        (b"\x00\x15\x00\x0b", r"sigAlg at 0x0: 0x0015, expected RSASSA \(0x0014\), RSAPSS"),
        (b"\x00\x14\x00\x10", "hash at 0x2: 0x0010, expected SHA-1, SHA-256"),
        (b"\x00\x14\x00\x0b\x02\x01", "sig at 0x4: 513 bytes, expected at most 512"),
        (b"\x00\x18\x00\x0b\x00\x43", "signatureR at 0x4: 67 bytes, expected at most 66"),
        (RSA.sign(b"x") + b"\0", "end at 0x106: 1 bytes more"),
        (TPM.sign(b"x") + b"\0", "end at 0x48: 1 bytes more"),
    ],
)
def test_what_is_no_signature_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        parse_signature(data)


@pytest.mark.parametrize("tpm", [TPM, RSA, Tpm(key=ec.generate_private_key(ec.SECP521R1()))])
def test_fields_of_a_public_area(tpm: Tpm) -> None:
    area = parse_public_area(tpm.public_area())
    assert area.spki == tpm.spki
    assert area.name == b"\x00\x0b" + hashlib.sha256(tpm.public_area()).digest()
    assert area.missing == ()
    assert area.hierarchy(tpm.qualified_name) == "endorsement"
    assert area.hierarchy(b"\x00\x0b" + bytes(32)) is None


def test_the_area_may_name_a_scheme() -> None:
    area = bytearray(RSA.public_area())
    assert area[12:14] == b"\x00\x10"
    named = bytes(area[:12]) + b"\x00\x14\x00\x0b" + bytes(area[14:])
    assert parse_public_area(named).spki == RSA.spki


ECC_AREA, RSA_AREA = TPM.public_area(), RSA.public_area()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "type at 0x0: the data end"),
        (bytes(1025), "TPM public area: 1025 bytes, expected at most 1024"),
        (b"\x00\x08" + ECC_AREA[2:], r"type at 0x0: 0x0008, expected RSA \(0x0001\) or ECC"),
        (ECC_AREA[:2] + b"\x00\x00" + ECC_AREA[4:], "nameAlg at 0x2: 0x0000"),
        (ECC_AREA[:10] + b"\x00\x06" + ECC_AREA[12:], "symmetric at 0xa: 0x6, expected 0x10"),
        (ECC_AREA[:12] + b"\x00\x1a" + ECC_AREA[14:], "scheme at 0xc: 0x001a, expected RSASSA"),
        (ECC_AREA[:16] + b"\x00\x01" + ECC_AREA[18:], "curveID at 0x10: 0x0001, expected P-256"),
        (ECC_AREA[:18] + b"\x00\x07" + ECC_AREA[20:], "kdf at 0x12: 0x7, expected 0x10"),
        (ECC_AREA[:-1] + bytes([ECC_AREA[-1] ^ 1]), "its numbers are no public key"),
        (ECC_AREA + b"\0", "end at 0x58: 1 bytes more"),
        (RSA_AREA[:14] + struct.pack(">H", 1024) + RSA_AREA[16:], "keyBits at 0xe: 1024, expected 2048, 3072, 4096"),
        (RSA_AREA[:16] + struct.pack(">I", 2) + RSA_AREA[20:], "its numbers are no public key"),
        (RSA_AREA[:22] + b"\x01" + RSA_AREA[23:], "unique at 0x116: 2041 bits, expected 2048"),
    ],
)
def test_what_is_no_public_area_of_a_signing_key_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        parse_public_area(data)


def test_attributes_of_an_attestation_key() -> None:
    assert parse_public_area(TPM.public_area(attributes=0)).missing == (
        "fixedTPM",
        "fixedParent",
        "sensitiveDataOrigin",
        "restricted",
        "sign",
    )
    assert parse_public_area(TPM.public_area(attributes=ATTRIBUTES | 1 << 17)).missing == ("no decrypt",)


class TestEventLogs:
    def test_a_crypto_agile_log(self) -> None:
        log = parse_event_log(spec_id(vendor=b"v") + event(7, 4, b"\0\0\0\0"))
        assert log.banks == ("sha1", "sha256")
        assert [(found.pcr, found.type, found.data) for found in log.events[1:]] == [(7, 4, bytes(4))]
        digest = hashlib.sha256(bytes(4)).digest()
        assert replay(log, "sha256") == {7: hashlib.sha256(bytes(32) + digest).digest()}
        assert replay(log, "sha1") == {7: hashlib.sha1(bytes(20) + hashlib.sha1(bytes(4)).digest()).digest()}

    def test_a_log_with_sha1_only(self) -> None:
        log = parse_event_log(old_event(0, 8, b"d" * 20, b"data") + old_event(0, 4, b"e" * 20))
        assert log.banks == ("sha1",)
        first = hashlib.sha1(bytes(20) + b"d" * 20).digest()
        assert replay(log, "sha1") == {0: hashlib.sha1(first + b"e" * 20).digest()}

    def test_an_algorithm_that_is_not_known_is_passed_over(self) -> None:
        banks = ((0x000B, 32), (0x0012, 32))
        digests = struct.pack("<H", 0x12) + bytes(32) + struct.pack("<H", 0xB) + b"d" * 32
        log = parse_event_log(spec_id(banks) + struct.pack("<III", 1, 4, 2) + digests + struct.pack("<I", 0))
        assert log.banks == ("sha256",)
        assert log.events[1].digests == {"sha256": b"d" * 32}

    def test_pcr_0_begins_with_the_locality_of_the_start(self) -> None:
        note = event(0, 3, b"StartupLocality\0\x03")
        log = parse_event_log(spec_id() + note + event(0, 8, b"x"))
        digest = hashlib.sha256(b"x").digest()
        assert log.startup_locality == 3
        assert replay(log, "sha256") == {0: hashlib.sha256(bytes(31) + b"\x03" + digest).digest()}

    def test_pcrs_of_a_dynamic_launch_begin_with_ones(self) -> None:
        log = parse_event_log(spec_id() + event(17, 4, b"x"))
        assert replay(log, "sha256") == {17: hashlib.sha256(b"\xff" * 32 + hashlib.sha256(b"x").digest()).digest()}

    def test_notes_extend_nothing(self) -> None:
        assert replay(parse_event_log(spec_id() + event(5, 3, b"x")), "sha256") == {}

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "pcrIndex at 0x0: the data end after 0 bytes"),
            (bytes(MAX_LOG_BYTES + 1), "event log: 524289 bytes, expected at most 524288"),
            (old_event(32, 4, bytes(20)), "pcrIndex at 0x0: 32, expected at most 31"),
            (old_event(0, 4, bytes(20)) * (MAX_EVENTS + 1), "another event, expected at most 2048"),
            (old_event(0, 4, bytes(20), b"x")[:-1], "event at 0x20: the data end after 32 bytes, expected 1 bytes"),
            (spec_id() + old_event(0, 4, bytes(20)), "digests at 0x4d: 0, expected 2, one of each algorithm"),
            (
                spec_id() + event(0, 4, b"", ("sha1", "sha1")),
                "digests.hashAlg at 0x67: 0x0004, expected each algorithm of the first event",
            ),
            (spec_id() + event(0, 4, b"", ("sha1", "sha384")), "digests.hashAlg at 0x67: 0x000c, expected each"),
            (spec_id(()), "numberOfAlgorithms at 0x18: 0, expected 1 to 8"),
            (spec_id(((0xB, 32),) * 9), "numberOfAlgorithms at 0x18: 9, expected 1 to 8"),
            (spec_id(((0xB, 32), (0xB, 32))), "32 bytes of 0x000b, expected each algorithm once, with its size"),
            (spec_id(((0xB, 20),)), "20 bytes of 0x000b, expected each algorithm once"),
            (spec_id(((0x12, 129),)), "129 bytes of 0x0012, expected each algorithm once"),
            (old_event(0, 3, bytes(20), b"Spec ID Event03\0"), "signature and versions at 0x0: the data end"),
        ],
    )
    def test_what_is_no_log_is_refused(self, data: bytes, says: str) -> None:
        with pytest.raises(EvidenceFormatError, match=says):
            parse_event_log(data)


AK: Any = RSA.key.public_key()


def claims_with(**changes: object) -> bytes:
    return hcl_report(AK, claims=runtime_claims(AK, **changes))


class TestHclReports:
    def test_fields(self) -> None:
        parsed = parse_hcl_report(hcl_report(AK, kind=4, report=b"r" * 1184))
        assert parsed.kind == "tdx"
        assert parsed.hardware_report == b"r" * 1184
        assert parsed.digest == hashlib.sha256(runtime_claims(AK)).digest()
        assert parsed.ak == RSA.spki
        assert (parsed.user_data, parsed.vm_unique_id) == ("00", "ID")

    def test_what_the_claims_need_not_have(self) -> None:
        parsed = parse_hcl_report(claims_with(**{"user-data": ..., "vm-configuration": ...}))
        assert (parsed.user_data, parsed.vm_unique_id) == ("", "")

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "signature at 0x0: the data end"),
            (bytes(MAX_HCL_BYTES + 1), "HCL report: 16385 bytes, expected at most 16384"),
            (b"HCLB" + hcl_report(AK)[4:], "signature at 0x0: 0x424c4348, expected 0x414c4348"),
            (hcl_report(AK)[:1000], "hardware report at 0x20: the data end after 1000 bytes"),
            (hcl_report(AK, kind=3), r"report type at 0x4c8: 3, expected 2 \(SNP\) or 4 \(TDX\)"),
            (hcl_report(AK, after=0)[:-1], "runtime claims at 0x4d4: the data end"),
            (hcl_report(AK, claims=b"{"), "runtime claims: not JSON"),
            (hcl_report(AK, claims=b"\xff"), "runtime claims: not JSON"),
            (hcl_report(AK, claims=b"[" * 5000), "runtime claims: not JSON"),
            (hcl_report(AK, claims=b"[]"), "runtime claims: expected a JSON object"),
            (claims_with(**{"user-data": 1}), "user-data or vmUniqueId is no text"),
            (claims_with(**{"vm-configuration": {"vmUniqueId": 1}}), "user-data or vmUniqueId is no text"),
            (claims_with(keys=...), "expected keys, a list of at most 16"),
            (claims_with(keys=[{}] * 17), "expected keys, a list of at most 16"),
            (claims_with(keys=[1, {"kid": "HCLEkPub"}]), "0 keys HCLAkPub, expected one, of RSA"),
            (claims_with(keys=[{"kid": "HCLAkPub", "kty": "RSA"}] * 2), "2 keys HCLAkPub, expected one"),
            (claims_with(keys=[{"kid": "HCLAkPub", "kty": "EC"}]), "1 keys HCLAkPub, expected one, of RSA"),
            (claims_with(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": 5}]), "HCLAkPub is no RSA key"),
            (claims_with(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": "*"}]), "HCLAkPub is no RSA key"),
            (claims_with(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": "AQAB"}]), "is no RSA key"),
        ],
    )
    def test_what_is_no_hcl_report_is_refused(self, data: bytes, says: str) -> None:
        with pytest.raises(EvidenceFormatError, match=says):
            parse_hcl_report(data)

    def test_another_hash_than_sha256_is_refused(self) -> None:
        data = bytearray(hcl_report(AK))
        data[0x4CC] = 2
        with pytest.raises(EvidenceFormatError, match="hash type at 0x4cc: 0x2, expected 0x1"):
            parse_hcl_report(bytes(data))


MEMBERS = {"quote": b"q", "signature": b"s"}


class TestWireForm:
    def test_members(self) -> None:
        parsed = parse_evidence(wire({**MEMBERS, "pcrs": {"sha256": {"7": "ab" * 32}}, "event_log": b"e"}))
        assert (parsed.quote, parsed.signature, parsed.event_log) == (b"q", b"s", b"e")
        assert parsed.pcrs == {"sha256": {7: b"\xab" * 32}}
        assert (parsed.ak, parsed.ak_public, parsed.hcl_report, parsed.snp_report, parsed.td_quote) == (None,) * 5

    def test_endorsements_may_be_missing(self) -> None:
        assert parse_endorsements(b"") == parse_endorsements(b"{}") == Endorsements()
        assert parse_endorsements(b'{"ak": "PEM", "tdx": "{}"}') == Endorsements(ak=b"PEM", tdx=b"{}")

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "TPM evidence: not JSON"),
            (b"\xff", "TPM evidence: not JSON"),
            (b"[" * 5000, "TPM evidence: not JSON"),
            (b"[]", "TPM evidence: found list, expected a JSON object"),
            (bytes(MAX_EVIDENCE_BYTES + 1), "TPM evidence: 1048577 bytes, expected at most 1048576"),
            (b'{"quote": "cQ==", "quote": "cQ=="}', "not JSON, or with a member twice"),
            (wire({**MEMBERS, "more": b"x"}), "TPM evidence: unknown member 'more'"),
            (wire({"quote": b"q"}), "TPM evidence, signature: expected base64, not empty"),
            (wire({**MEMBERS, "ak": b""}), "TPM evidence, ak: expected base64, not empty"),
            (wire({**MEMBERS, "ak": "*"}), "TPM evidence, ak: expected base64, not empty"),
            (wire({**MEMBERS, "ak": 1}), "TPM evidence, ak: expected base64, not empty"),
            (wire({**MEMBERS, "pcrs": None}), "PCR values: expected an object of banks"),
        ],
    )
    def test_evidence_of_another_form_is_refused(self, data: bytes, says: str) -> None:
        with pytest.raises(EvidenceFormatError, match=says):
            parse_evidence(data)

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"x", "TPM endorsements: not JSON"),
            (bytes(MAX_ENDORSEMENTS_BYTES + 1), "TPM endorsements: 1048577 bytes"),
            (b'{"sgx": ""}', "TPM endorsements: unknown member 'sgx', expected ak, snp or tdx"),
            (b'{"ak": 1}', "TPM endorsements, ak: expected ASCII text"),
            ('{"ak": "ä"}'.encode(), "TPM endorsements, ak: expected ASCII text"),
        ],
    )
    def test_endorsements_of_another_form_are_refused(self, data: bytes, says: str) -> None:
        with pytest.raises(EvidenceFormatError, match=says):
            parse_endorsements(data)

    @pytest.mark.parametrize(
        ("members", "says"),
        [
            ({}, "PCR values: expected an object of banks"),
            ({"md5": {}}, "PCR values: bank 'md5', expected sha1, sha256, sha384, sha512"),
            ({"sha256": []}, "PCR values, sha256: expected an object of values by number"),
            ({"sha256": {"32": "00" * 32}}, "PCR values, sha256: '32' is no number of a PCR, 0 to 31"),
            ({"sha256": {"07": "00" * 32}}, "PCR values, sha256: '07' is no number of a PCR"),
            ({"sha256": {"7": "00" * 20}}, "PCR values, sha256:7: expected 64 hex digits"),
            ({"sha256": {"7": "xx" * 32}}, "PCR values, sha256:7: expected 64 hex digits"),
            ({"sha256": {"7": 7}}, "PCR values, sha256:7: expected 64 hex digits"),
        ],
    )
    def test_pcr_values_of_another_form_are_refused(self, members: object, says: str) -> None:
        with pytest.raises(EvidenceFormatError, match=says):
            parse_pcrs(json.dumps(members).encode())
