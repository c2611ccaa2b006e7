"""Nitro documents under AWS's root and under one that the tests make: what is authentic, and everything that is not."""

from __future__ import annotations

from datetime import timedelta

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.simulators.chains import NOW
from tests.simulators.genuine import Case, cases
from tests.simulators.nitro_host import PCRS, Host, make_host

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, OstiaryError
from ostiary.evidence.claims import Claims
from ostiary.evidence.nitro.layout import MAX_DEPTH, MAX_DOCUMENT_BYTES, parse_document, shown
from ostiary.evidence.nitro.verify import Verifier, verify
from ostiary.evidence.roots import nitro_root

HOST = make_host()
GENUINE = cases("nitro")
REASONS = {
    "nitro-dstack-2025-expired": "fetch new endorsements: the chain held until 2025-12-25T19:04:19Z",
    "nitro-fortanix-bad-certificate": "Nitro document, certificate: not a certificate in DER that can be read",
    "nitro-fortanix-bad-signature": "the document is not signed by the key of its certificate",
    "nitro-marlin-own-root": "a root that this service does not trust: the last of them is issued by 'CN=root'",
}


def judged(document: bytes, host: Host = HOST, *, software: bool = False) -> Claims:
    return verify(document, roots=[nitro_root(), host.root.root(software=software)], now=NOW)


@pytest.mark.parametrize("case", GENUINE, ids=str)
def test_genuine_documents_give_the_expected_verdict_and_claims(case: Case) -> None:
    document = case.files["attestation.cbor"]
    assert shown(parse_document(document)) == case.claims
    if not case.valid:
        with pytest.raises(OstiaryError, match=REASONS[case.name]):
            verify(document, roots=[nitro_root()], now=case.verify_at)
        return
    claims = verify(document, roots=[nitro_root()], now=case.verify_at)
    assert claims.raw == case.claims
    assert claims.identity.hex() == case.claims["pcr0"]
    assert claims.debug is ("debug" in case.expected["flags"])
    assert not claims.software


@pytest.mark.parametrize("case", [case for case in GENUINE if case.valid][:3], ids=str)
def test_no_byte_of_a_genuine_document_can_be_changed(case: Case) -> None:
    """A change may leave the claims as they are, such as one in the tag before the document; others it never gives."""
    document = case.files["attestation.cbor"]
    verifier = Verifier((nitro_root(),))
    expected = verifier.verify(document, now=case.verify_at)
    accepted = 0
    for offset in range(len(document)):
        changed = bytearray(document)
        changed[offset] ^= 1 + offset % 255
        try:
            found = verifier.verify(bytes(changed), now=case.verify_at)
        except (EvidenceFormatError, EvidenceRefusedError):
            continue
        accepted += 1
        assert found == expected
    assert accepted == 0


def test_claims_of_a_document() -> None:
    claims = judged(HOST.document())
    assert claims.tee == "nitro"
    assert claims.identity == PCRS[0]
    assert claims.measurements["pcr4"] == PCRS[4]
    assert (claims.signer, claims.product_id, claims.svn) == (None, None, None)
    assert claims.report_data == b"u" * 64
    assert (claims.debug, claims.software) == (False, False)
    assert claims.platform_id == "i-0123456789abcdef0"


def test_a_document_with_the_tag_of_cose_sign1_is_the_same() -> None:
    tagged = cbor2.dumps(cbor2.CBORTag(18, HOST.sign(cbor2.dumps(HOST.members()))))
    assert judged(tagged).raw == judged(HOST.document()).raw


def test_pcr8_is_the_signer() -> None:
    assert judged(HOST.document(pcrs={**PCRS, 8: b"s" * 48})).signer == b"s" * 48


def test_a_debug_enclave_has_zeros_in_its_first_three_registers() -> None:
    zeros = dict.fromkeys(range(3), bytes(48))
    assert judged(HOST.document(pcrs={**PCRS, **zeros})).debug
    assert not judged(HOST.document(pcrs={**PCRS, **zeros, 1: b"x" * 48})).debug
    assert judged(HOST.document(pcrs={0: bytes(48)})).debug


def test_a_software_root_makes_software_evidence_which_is_debug() -> None:
    claims = judged(HOST.document(), software=True)
    assert claims.software
    assert claims.debug


def test_optional_members_may_be_missing() -> None:
    claims = judged(HOST.document(user_data=..., nonce=..., public_key=...))
    assert claims.report_data == b""
    assert claims.raw["nonce"] is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"module_id": 1}, "module_id: expected text"),
        ({"module_id": ""}, "module_id: expected text"),
        ({"module_id": ...}, "expected a map of cabundle, certificate, digest, module_id, pcrs, timestamp"),
        ({"extra": 1}, "expected a map of"),
        ({"digest": "MD5"}, "digest: 'MD5', expected SHA256, SHA384, SHA512"),
        ({"timestamp": -1}, "timestamp: expected milliseconds since 1970"),
        ({"timestamp": True}, "timestamp: expected milliseconds since 1970"),
        ({"timestamp": 2**63}, "timestamp: expected milliseconds since 1970"),
        ({"timestamp": 1.5}, "timestamp: expected milliseconds since 1970"),
        ({"pcrs": {}}, "pcrs: expected a map of 1 to 32 registers"),
        ({"pcrs": []}, "pcrs: expected a map of 1 to 32 registers"),
        ({"pcrs": {32: bytes(48)}}, "pcrs: a register with another number than 0 to 31"),
        ({"pcrs": {True: bytes(48)}}, "pcrs: a register with another number than 0 to 31"),
        ({"pcrs": {"0": bytes(48)}}, "pcrs: a register with another number than 0 to 31"),
        ({"pcrs": {0: bytes(32)}}, r"pcrs\[0\]: expected 48 bytes"),
        ({"pcrs": {1: bytes(48)}}, "pcrs: no register 0, which measures the enclave"),
        ({"certificate": b""}, "certificate: expected bytes"),
        ({"certificate": b"x"}, "certificate: not a certificate in DER that can be read"),
        ({"cabundle": []}, "cabundle: expected a list of 1 to 7 certificates"),
        ({"cabundle": [b"x"] * 8}, "cabundle: expected a list of 1 to 7 certificates"),
        ({"cabundle": ["x"]}, r"cabundle\[0\]: expected bytes"),
        ({"cabundle": [b"x", HOST.middle.der]}, r"cabundle\[0\]: not a certificate"),
        ({"nonce": "x"}, "nonce: expected bytes or null"),
    ],
)
def test_members_of_another_form_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        judged(HOST.document(**changes))


PAYLOAD = cbor2.dumps(HOST.members())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not CBOR that can be read"),
        (b"\xff", "not CBOR that can be read"),
        (b"\x81" * 5000 + b"\x00", "not CBOR that can be read"),
        (b"\x81" * (MAX_DEPTH + 1) + b"\x00", "not CBOR that can be read"),
        (b"\x81" * MAX_DEPTH + b"\x00", "expected COSE_Sign1, an array of four"),
        (b"\xd8\x23\x61a", "not CBOR that can be read"),
        (b"\xc2\x41\x01", "not CBOR that can be read"),
        (b"\xd2" + cbor2.dumps(cbor2.CBORTag(18, HOST.sign(PAYLOAD))), "not CBOR that can be read"),
        (cbor2.dumps(cbor2.CBORTag(0x9999, HOST.sign(PAYLOAD))), "not CBOR that can be read"),
        (HOST.document() + b"\x00", "1 bytes after its end, expected none"),
        (bytes(MAX_DOCUMENT_BYTES + 1), "32769 bytes, expected at most 32768"),
        (cbor2.dumps({}), "expected COSE_Sign1, an array of four"),
        (cbor2.dumps([1, 2, 3]), "expected COSE_Sign1, an array of four"),
        (cbor2.dumps(cbor2.CBORTag(98, HOST.sign(PAYLOAD))), "not CBOR that can be read"),
        (cbor2.dumps(HOST.sign(PAYLOAD, bytes.fromhex("a10126"))), r"the protected header \{1: -35\}, ES384"),
        (cbor2.dumps([bytes.fromhex("a1013822"), {1: -35}, PAYLOAD, bytes(96)]), "and no other header"),
        (cbor2.dumps([bytes.fromhex("a1013822"), {}, "x", bytes(96)]), "payload: expected bytes"),
        (cbor2.dumps([bytes.fromhex("a1013822"), {}, PAYLOAD, bytes(95)]), "signature: expected 96 bytes"),
        (cbor2.dumps(HOST.sign(cbor2.dumps(cbor2.CBORTag(258, [])))), "payload: not CBOR that can be read"),
        (cbor2.dumps(HOST.sign(b"\xff")), "payload: not CBOR that can be read"),
        (cbor2.dumps(HOST.sign(PAYLOAD + b"\x00")), "payload: 1 bytes after its end"),
        (cbor2.dumps(HOST.sign(cbor2.dumps([]))), "payload: expected a map of"),
    ],
)
def test_what_is_no_document_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        judged(data)


def refused(document: bytes, host: Host = HOST) -> str:
    with pytest.raises(EvidenceRefusedError) as caught:
        judged(document, host)
    return str(caught.value)


def test_a_document_that_another_key_signed_is_refused() -> None:
    other = make_host(root=HOST.root)
    document = other.document(certificate=HOST.leaf.der, cabundle=[HOST.root.der, HOST.middle.der])
    assert "not signed by the key of its certificate" in refused(document)


def test_a_signature_of_zeros_is_refused() -> None:
    zeros = cbor2.dumps([bytes.fromhex("a1013822"), {}, PAYLOAD, bytes(96)])
    assert "not signed by the key of its certificate" in refused(zeros)


def test_a_key_of_another_curve_is_refused() -> None:
    small = make_host(curve=ec.SECP256R1())
    assert "not of a P-384 key" in refused(small.document(), small)


def test_a_document_from_the_future_is_refused() -> None:
    later = int((NOW + timedelta(minutes=6)).timestamp() * 1000)
    assert "from the future: it is dated 2026-11-23T12:06:00Z" in refused(HOST.document(timestamp=later))
    assert judged(HOST.document(timestamp=later - 120_000)).tee == "nitro"


def test_a_chain_in_another_order_is_refused() -> None:
    assert "is not issued by" in refused(HOST.document(cabundle=[HOST.middle.der, HOST.root.der]))


def test_without_roots_nothing_is_authentic() -> None:
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        verify(HOST.document(), roots=[], now=NOW)


class TestRemembering:
    def test_a_chain_is_verified_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = Verifier((HOST.root.root(),))
        first = verifier.verify(HOST.document(), now=NOW)
        monkeypatch.setattr("ostiary.evidence.nitro.verify.verify_chain", None)
        assert verifier.verify(HOST.document(), now=NOW).identity == first.identity

    def test_it_is_not_believed_after_its_end(self) -> None:
        verifier = Verifier((HOST.root.root(),))
        verifier.verify(HOST.document(), now=NOW)
        with pytest.raises(EvidenceRefusedError, match="has run out"):
            verifier.verify(HOST.document(), now=NOW + timedelta(days=2))

    def test_bytes_that_move_from_one_certificate_to_the_next_are_another_chain(self) -> None:
        verifier = Verifier((HOST.root.root(),))
        verifier.verify(HOST.document(), now=NOW)
        moved = [HOST.root.der[:-1], HOST.root.der[-1:] + HOST.middle.der]
        with pytest.raises(EvidenceFormatError, match="not a certificate"):
            verifier.verify(HOST.document(cabundle=moved), now=NOW)

    def test_the_least_recently_used_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ostiary.evidence.nitro.verify.MAX_CHAINS", 1)
        other = make_host(root=HOST.root)
        verifier = Verifier((HOST.root.root(),))
        for host in (HOST, other, HOST):
            assert verifier.verify(host.document(), now=NOW).identity == PCRS[0]


def test_a_document_is_as_old_as_it_says() -> None:
    assert judged(HOST.document()).issued == NOW
