"""The owner's half of enrolling a TPM's key: for which offers a challenge is made, and which answers are accepted."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.chains import NOW, issue, revoke
from tests.simulators.chains import pem as crl_pem
from tests.simulators.genuine import VECTORS
from tests.simulators.tpm import ATTRIBUTES, Tpm
from tests.simulators.tpm_maker import AK_PURPOSE, EK_PURPOSE, certify, ek_area, offer_text, pem

from ostiary.attester.tpm import pem_text
from ostiary.attester.tpm_enrolment import _without_padding
from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.roots import TrustedRoot, ek_root
from ostiary.evidence.tpm.credential import make_credential
from ostiary.evidence.tpm.endorsement_key import (
    MAX_PUBLIC_BYTES,
    EndorsementKey,
    ek_certificate,
    parse_endorsement_key,
    shown_tpm,
    verify_ek_certificate,
)
from ostiary.evidence.tpm.enrolment import (
    ID_BYTES,
    MAX_AGE,
    MAX_MESSAGE_BYTES,
    SECRET_BYTES,
    Pending,
    VerifiedOffer,
    accept_answer,
    make_challenge,
    parse_offer,
    parse_pending,
    pending_text,
    verify_offer,
)
from ostiary.evidence.tpm.verify import pinned_ak

ROOT = issue("TPM maker")
MIDDLE = issue("TPM maker, 2026", ROOT)
STRANGER = issue("Another maker")
RSA_EK = rsa.generate_private_key(65537, 2048).public_key()
ECC_EK = ec.generate_private_key(ec.SECP256R1()).public_key()
AK = Tpm()
ID, SECRET = b"i" * ID_BYTES, b"s" * SECRET_BYTES

Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def spki(key: Key) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


CERTIFICATE = certify(spki(RSA_EK), MIDDLE)
CHAIN = pem(CERTIFICATE) + MIDDLE.pem


def verified(
    certificates: bytes = CHAIN,
    key: Key = RSA_EK,
    ak_public: bytes | None = None,
    now: datetime = NOW,
    given: bytes = b"",
) -> VerifiedOffer:
    offer = parse_offer(offer_text(certificates, ek_area(key), ak_public or AK.public_area()))
    return verify_offer(offer, certificates=given, roots=[ROOT.root()], now=now)


def refused(*arguments: object, **how: object) -> str:
    with pytest.raises(EvidenceRefusedError) as caught:
        verified(*arguments, **how)  # type: ignore[arg-type]
    return str(caught.value)


def known_bytes(size: int) -> bytes:
    return {ID_BYTES: ID, SECRET_BYTES: SECRET}[size]


def challenged() -> tuple[bytes, Pending]:
    return make_challenge(verified(), random=known_bytes, make_credential=make_credential, now=NOW)


def answer_text(**changes: object) -> bytes:
    members = {"format": "ostiary-tpm-answer-v1", "id": ID.hex(), "secret": b64encode(SECRET).decode(), **changes}
    return json.dumps({name: member for name, member in members.items() if member is not ...}).encode()


class TestOffer:
    @pytest.mark.parametrize("key", [RSA_EK, ECC_EK], ids=["RSA", "ECC"])
    def test_a_key_that_the_maker_certified_is_believed(self, key: Key) -> None:
        found = verified(pem(certify(spki(key), MIDDLE)) + MIDDLE.pem, key)
        assert found.ek.spki == spki(key)
        assert found.ak.spki == AK.spki

    def test_issuers_may_come_from_the_owner(self) -> None:
        assert verified(pem(CERTIFICATE), given=MIDDLE.pem).ek_certificate == CERTIFICATE
        assert "lead to a root that this service does not trust" in refused(pem(CERTIFICATE))

    @pytest.mark.parametrize("critical", [False, True])
    def test_what_the_key_is_for_may_be_critical(self, critical: bool) -> None:
        verified(pem(certify(spki(RSA_EK), ROOT, critical_purpose=critical)))

    def test_a_certificate_that_does_not_limit_the_use_of_its_key(self) -> None:
        verified(pem(certify(spki(RSA_EK), ROOT, use="")))

    def test_what_makers_write_into_their_own_certificates(self) -> None:
        """Intel's are critical: the policy that it issues by, and that it certifies EKs."""
        policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)])
        purpose = x509.ExtendedKeyUsage([EK_PURPOSE])
        middle = issue("TPM maker, 2026", ROOT, extensions=[(policies, True), (purpose, True)])
        verified(pem(certify(spki(RSA_EK), middle)) + middle.pem)

    @pytest.mark.parametrize("critical", [False, True])
    def test_an_issuer_of_certificates_for_something_else_is_refused(self, critical: bool) -> None:
        middle = issue("AK maker", ROOT, extensions=[(x509.ExtendedKeyUsage([AK_PURPOSE]), critical)])
        said = refused(pem(certify(spki(RSA_EK), middle)) + middle.pem)
        assert said.startswith("an issuer of the EK's certificate may not certify endorsement keys")
        assert "AK maker" in said

    def test_an_issuer_with_a_critical_extension_that_nobody_knows_is_refused(self) -> None:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
        middle = issue("TPM maker, 2026", ROOT, extensions=[(unknown, True)])
        assert "has the critical extension 1.2.3, unknown here" in refused(
            pem(certify(spki(RSA_EK), middle)) + middle.pem
        )

    def test_a_maker_whom_nobody_named_is_refused(self) -> None:
        said = refused(pem(certify(spki(RSA_EK), STRANGER)))
        assert said.startswith("the EK's certificate does not hold under the roots that were named: ")
        assert "Another maker" in said

    def test_a_maker_who_only_has_the_name_of_one_who_was_named_is_refused(self) -> None:
        assert "does not hold under the roots" in refused(pem(certify(spki(RSA_EK), issue("TPM maker"))))

    def test_without_roots_nothing_is_believed(self) -> None:
        offer = parse_offer(offer_text(CHAIN, ek_area(RSA_EK), AK.public_area()))
        with pytest.raises(EvidenceRefusedError, match="does not hold under the roots"):
            verify_offer(offer, roots=[], now=NOW)

    @pytest.mark.parametrize(
        ("now", "words"),
        [(NOW + timedelta(days=2), "has run out"), (NOW - timedelta(days=2), "is from the future")],
        ids=["expired", "not yet"],
    )
    def test_a_certificate_that_is_not_in_force_is_refused(self, now: datetime, words: str) -> None:
        assert words in refused(now=now)

    def test_a_revoked_certificate_is_refused(self) -> None:
        assert "is revoked" in refused(given=crl_pem(revoke(MIDDLE, CERTIFICATE.serial_number)))
        verified(given=crl_pem(revoke(MIDDLE, 1)))

    @pytest.mark.parametrize("key", [ECC_EK, rsa.generate_private_key(65537, 2048).public_key()], ids=["ECC", "RSA"])
    def test_the_certificate_of_another_key_is_refused(self, key: Key) -> None:
        said = refused(pem(certify(spki(key), ROOT)))
        assert said.startswith("the EK's certificate is for another key than the offer's EK")

    @pytest.mark.parametrize("purposes", [(), (AK_PURPOSE,)], ids=["of no purpose", "of an AK"])
    def test_the_certificate_of_a_key_that_is_no_endorsement_key_is_refused(
        self, purposes: tuple[x509.ObjectIdentifier, ...]
    ) -> None:
        said = refused(pem(certify(spki(RSA_EK), ROOT, purposes=purposes)))
        assert said.startswith("the certificate is not that of an endorsement key: ")
        assert "expected 2.23.133.8.1" in said

    def test_the_certificate_of_a_key_that_may_only_sign_is_refused(self) -> None:
        said = refused(pem(certify(spki(RSA_EK), ROOT, use="digital_signature")))
        assert said == "the EK's certificate is for a key that may not decrypt: it is that of another key"

    def test_the_certificate_of_a_ca_is_refused(self) -> None:
        with pytest.raises(EvidenceFormatError, match="0 certificates that are no CA"):
            verified(pem(certify(spki(RSA_EK), ROOT, ca=True, use="key_cert_sign")))

    def test_who_was_certified_as_a_tpm_certifies_no_tpms(self) -> None:
        """The certificate of an EK is at the end of its chain."""
        leaf = issue("EK", ROOT, ca=None, extensions=[(x509.ExtendedKeyUsage([EK_PURPOSE]), False)])
        with pytest.raises(EvidenceFormatError, match="2 certificates that are no CA"):
            verified(pem(certify(spki(RSA_EK), leaf)) + leaf.pem)

    @pytest.mark.parametrize(
        ("attributes", "words"),
        [
            (ATTRIBUTES & ~(1 << 1), "fixedTPM"),
            (ATTRIBUTES & ~(1 << 4), "fixedParent"),
            (ATTRIBUTES & ~(1 << 5), "sensitiveDataOrigin"),
            (ATTRIBUTES & ~(1 << 16), "restricted"),
            (ATTRIBUTES & ~(1 << 18), "sign"),
            (ATTRIBUTES | 1 << 17, "no decrypt"),
        ],
    )
    def test_a_key_that_may_leave_its_tpm_or_sign_anything_is_refused(self, attributes: int, words: str) -> None:
        said = refused(ak_public=AK.public_area(attributes=attributes))
        assert said.startswith("the AK is not a restricted signing key of its TPM")
        assert said.endswith(f"its attributes lack {words}")

    def test_a_key_that_is_named_by_sha1_is_refused(self) -> None:
        area = AK.public_area()
        assert refused(ak_public=area[:2] + b"\x00\x04" + area[4:]).startswith("the AK is named by SHA-1")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"", "offer: not JSON"),
            (b"[]", "expected a JSON object"),
            (b"{}", "not a file of `ostiary tpm`, or of another step"),
            (bytes(MAX_MESSAGE_BYTES + 1), f"expected at most {MAX_MESSAGE_BYTES}"),
            (answer_text(), "expected format ostiary-tpm-offer-v1"),
            (offer_text(CHAIN, b"", b"", ek_public=...), "expected the members format, ek_certificate"),
            (offer_text(CHAIN, b"", b"", more="x"), "and no other"),
            (offer_text(CHAIN, b"", b"", ak_public=1), "expected texts only"),
            (offer_text(CHAIN, b"", b"", ek_public="é"), "offer, ek_public: expected base64"),
            (offer_text(CHAIN, b"", b"", ek_public="A"), "offer, ek_public: expected base64"),
            (offer_text(CHAIN, b"", b"", ek_certificate="é"), "offer, ek_certificate: expected PEM"),
            (offer_text(CHAIN, b"x", b""), "EK public area: not that of an endorsement key"),
            (offer_text(CHAIN, ek_area(RSA_EK), b"x"), "TPM public area, type at 0x0"),
            (offer_text(CHAIN, AK.public_area(), AK.public_area()), "EK public area: not that of an endorsement key"),
            (offer_text(CHAIN, ek_area(RSA_EK), ek_area(RSA_EK)), "TPM public area, symmetric"),
        ],
    )
    def test_what_is_no_offer_is_told(self, text: bytes, words: str) -> None:
        with pytest.raises(EvidenceFormatError) as caught:
            parse_offer(text)
        assert words in str(caught.value)

    @pytest.mark.parametrize("certificates", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
    def test_what_is_no_certificate_is_told(self, certificates: bytes) -> None:
        with pytest.raises(EvidenceFormatError, match="endorsements: "):
            verified(certificates)


class TestEndorsementKey:
    @pytest.mark.parametrize(("key", "kind"), [(RSA_EK, "rsa"), (ECC_EK, "ecc")])
    def test_a_key_of_the_templates(self, key: Key, kind: str) -> None:
        area = ek_area(key)
        found = parse_endorsement_key(area)
        assert (found.kind, found.spki, found.area) == (kind, spki(key), area)
        assert found.name == b"\x00\x0b" + hashlib.sha256(area).digest()

    @pytest.mark.parametrize(
        ("area", "words"),
        [
            (bytes(MAX_PUBLIC_BYTES + 1), f"expected at most {MAX_PUBLIC_BYTES}"),
            (ek_area(RSA_EK, attributes=0x000300B0), "not that of an endorsement key"),
            (ek_area(ECC_EK, attributes=0x000300F2), "not that of an endorsement key"),
            (ek_area(RSA_EK) + b"x", "end at .*1 bytes more"),
            (ek_area(RSA_EK)[:-1], "unique at"),
            (ek_area(RSA_EK)[:-256] + bytes(256), "unique at .*: 0 bits, expected 2048"),
            (ek_area(ECC_EK)[:-1], "unique.y at"),
            (ek_area(ECC_EK)[:-32] + bytes(32), "its numbers are no public key"),
        ],
    )
    def test_any_other_is_refused(self, area: bytes, words: str) -> None:
        with pytest.raises(EvidenceFormatError, match=words):
            parse_endorsement_key(area)

    def test_what_the_certificate_says_of_the_tpm(self) -> None:
        shown = {"manufacturer": "id:4F535459", "model": "gate\x1b[2J", "version": "id:00010002"}
        assert shown_tpm(ek_certificate(CHAIN)) == shown
        assert shown_tpm(ROOT.certificate) == {}

    def test_it_is_the_certificate_that_was_verified(self) -> None:
        ek = parse_endorsement_key(ek_area(RSA_EK))
        assert verify_ek_certificate(CHAIN, ek, roots=[ROOT.root()], now=NOW) == CERTIFICATE


@pytest.mark.parametrize("name", ["st-rsa", "st-ecc"])
class TestGenuineCertificates:
    """Certificates that STMicroelectronics gave its TPMs: tests/vectors/tpm-ek/README.md."""

    def parts(self, name: str) -> tuple[bytes, EndorsementKey, TrustedRoot]:
        directory = VECTORS / "tpm-ek" / name
        leaf = pem_text(_without_padding((directory / "ek.nv").read_bytes())).encode()
        key = ek_certificate(leaf).public_key()
        assert isinstance(key, Key)
        ek = parse_endorsement_key(ek_area(key))
        return leaf + (directory / "issuers.pem").read_bytes(), ek, ek_root((directory / "root.pem").read_bytes())

    def test_they_lead_to_the_makers_root(self, name: str) -> None:
        certificates, ek, root = self.parts(name)
        leaf = verify_ek_certificate(certificates, ek, roots=[root], now=NOW)
        assert shown_tpm(leaf) == {"manufacturer": "id:53544D20", "model": "ST33HTPHAHB4", "version": "id:00490004"}

    def test_they_run_out(self, name: str) -> None:
        certificates, ek, root = self.parts(name)
        with pytest.raises(EvidenceRefusedError, match="has run out"):
            verify_ek_certificate(certificates, ek, roots=[root], now=NOW.replace(year=2029))

    def test_a_changed_one_is_refused(self, name: str) -> None:
        certificates, ek, root = self.parts(name)
        der = bytearray(ek_certificate(certificates).public_bytes(Encoding.DER))
        der[-1] ^= 1
        changed = pem_text(bytes(der)).encode() + certificates[certificates.index(b"-----END") :].split(b"\n", 1)[1]
        with pytest.raises(EvidenceRefusedError, match="a certificate is not signed by the next one"):
            verify_ek_certificate(changed, ek, roots=[root], now=NOW)


class TestAnswer:
    def test_the_right_answer_gives_the_key(self) -> None:
        assert pinned_ak(accept_answer(answer_text(), challenged()[1], now=NOW + MAX_AGE).encode()) == AK.spki

    def test_the_secret_is_in_the_credential_only(self) -> None:
        challenge, pending = challenged()
        for text in (challenge, pending_text(pending), repr(pending).encode()):
            assert SECRET not in text
            assert SECRET.hex().encode() not in text
            assert b64encode(SECRET) not in text
        assert hashlib.sha256(SECRET).hexdigest() not in repr(pending)

    def test_the_challenge_names_both_keys(self) -> None:
        members = json.loads(challenged()[0])
        assert members["ek_name"] == "000b" + hashlib.sha256(ek_area(RSA_EK)).hexdigest()
        assert members["ak_name"] == "000b" + hashlib.sha256(AK.public_area()).hexdigest()
        assert (members["id"], members["ek"]) == (ID.hex(), "rsa")

    def test_what_is_kept_is_read_again(self) -> None:
        pending = challenged()[1]
        assert parse_pending(pending_text(pending)) == pending
        assert pending.ek_certificate_sha256 == CERTIFICATE.fingerprint(hashes.SHA256())

    @pytest.mark.parametrize("secret", [b"t" * SECRET_BYTES, SECRET[:-1], SECRET + b"s", b""])
    def test_a_wrong_secret_is_refused(self, secret: bytes) -> None:
        with pytest.raises(EvidenceRefusedError, match="the answer is wrong: no TPM that holds both keys") as caught:
            accept_answer(answer_text(secret=b64encode(secret).decode()), challenged()[1], now=NOW)
        assert SECRET.hex() not in str(caught.value)

    def test_the_hash_that_is_kept_is_no_answer(self) -> None:
        pending = challenged()[1]
        with pytest.raises(EvidenceRefusedError, match="the answer is wrong"):
            accept_answer(answer_text(secret=b64encode(pending.secret_sha256).decode()), pending, now=NOW)

    def test_the_answer_to_another_challenge_is_refused(self) -> None:
        other = replace(challenged()[1], id=bytes(ID_BYTES))
        with pytest.raises(EvidenceRefusedError, match="this is the answer to another challenge: it names 6969"):
            accept_answer(answer_text(), other, now=NOW)

    def test_an_answer_to_another_challenge_that_names_this_one_is_refused(self) -> None:
        other = replace(challenged()[1], secret_sha256=hashlib.sha256(b"another").digest())
        with pytest.raises(EvidenceRefusedError, match="the answer is wrong"):
            accept_answer(answer_text(), other, now=NOW)

    def test_an_old_challenge_is_refused(self) -> None:
        with pytest.raises(EvidenceRefusedError, match="the challenge is older than 7 days; make a new one"):
            accept_answer(answer_text(), challenged()[1], now=NOW + MAX_AGE + timedelta(seconds=1))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"garbage", "answer: not JSON"),
            (answer_text(format="ostiary-tpm-challenge-v1"), "expected format ostiary-tpm-answer-v1"),
            (answer_text(id="69"), "answer, id: expected 32 hex digits"),
            (answer_text(id="x" * 32), "answer, id: expected 32 hex digits"),
            (answer_text(secret="!"), "answer, secret: expected base64"),
            (answer_text(secret=...), "expected the members format, id, secret, and no other"),
        ],
    )
    def test_what_is_no_answer_is_told(self, text: bytes, words: str) -> None:
        with pytest.raises(EvidenceFormatError) as caught:
            accept_answer(text, challenged()[1], now=NOW)
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda m: m.update(format="x"), "kept challenge: not a file of `ostiary tpm`"),
            (lambda m: m.pop("ak"), "kept challenge: expected the members"),
            (lambda m: m.update(made="yesterday"), "made or ak_name is not what was written"),
            (lambda m: m.update(made="2026-11-23T12:00:00"), "kept challenge, made: expected a time with its zone"),
            (lambda m: m.update(ak_name="x"), "made or ak_name is not what was written"),
            (lambda m: m.update(secret_sha256=""), "kept challenge, secret_sha256: expected 64 hex digits"),
        ],
    )
    def test_a_damaged_note_is_told(self, change: Callable[[dict[str, str]], object], words: str) -> None:
        members = json.loads(pending_text(challenged()[1]))
        change(members)
        with pytest.raises(EvidenceFormatError) as caught:
            parse_pending(json.dumps(members).encode())
        assert words in str(caught.value)

    def test_times_are_kept_in_utc(self) -> None:
        assert parse_pending(pending_text(challenged()[1])).made.tzinfo == UTC
