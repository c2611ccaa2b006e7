"""Quotes of a TPM that the tests make: who may vouch for its key, and everything that is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from tests.simulators.chains import NOW, Holder, issue, pem, revoke
from tests.simulators.sgx_platform import NOW as PLATFORM_NOW
from tests.simulators.sgx_platform import SgxPlatform
from tests.simulators.snp_chip import MEASUREMENT, Chip, make_chip
from tests.simulators.tpm import (
    ATTRIBUTES,
    BANKS,
    NONCE,
    Tpm,
    event,
    hcl_report,
    old_event,
    runtime_claims,
    spec_id,
    value,
    wire,
)

from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.claims import Claims
from ostiary.evidence.tpm.verify import MAX_KEY_BYTES, TrustedAks, Verifier, pinned_ak, verify

TPM = Tpm()
RSA = Tpm(key=rsa.generate_private_key(65537, 2048), scheme="rsassa")
SELECTED = {"sha256": (0, 7, 23)}
PINNED = TrustedAks(keys=frozenset({TPM.spki, RSA.spki}))
ROOT = issue("TPM maker")
MIDDLE = issue("TPM maker, 2026", ROOT)
CHIP = make_chip()


def judged(tpm: Tpm = TPM, aks: TrustedAks = PINNED, **changes: object) -> Claims:
    return verify(tpm.evidence(SELECTED, **changes), b"", roots=[], aks=aks, now=NOW)


def refused(tpm: Tpm = TPM, aks: TrustedAks = PINNED, **changes: object) -> str:
    with pytest.raises(EvidenceRefusedError) as caught:
        judged(tpm, aks, **changes)
    return str(caught.value)


def test_claims_of_a_pinned_key() -> None:
    claims = judged()
    assert claims.tee == "tpm"
    assert claims.identity == hashlib.sha256(value(0) + value(7) + value(23)).digest()
    assert {name: found for name, found in claims.measurements.items() if name != "pcrs"} == {
        f"sha256:{pcr}": value(pcr) for pcr in (0, 7, 23)
    }
    assert (claims.signer, claims.product_id, claims.svn) == (None, None, None)
    assert claims.report_data == NONCE
    assert (claims.debug, claims.software) == (False, False)
    assert (claims.tcb_status, claims.advisories, claims.conditions) == ("UpToDate", frozenset(), frozenset())
    assert claims.platform_id == hashlib.sha256(TPM.spki).hexdigest()
    assert claims.raw["ak_trust"] == "pinned"
    assert claims.raw["ak_hierarchy"] == "endorsement"


@pytest.mark.parametrize(
    "tpm",
    [
        RSA,
        Tpm(key=RSA.key, scheme="rsapss"),
        Tpm(key=RSA.key, scheme="rsassa", hash="sha384"),
        Tpm(key=ec.generate_private_key(ec.SECP384R1()), hash="sha384"),
        Tpm(key=ec.generate_private_key(ec.SECP521R1()), hash="sha512"),
    ],
    ids=lambda tpm: f"{tpm.scheme}-{tpm.hash}-{tpm.key.key_size}",
)
def test_every_scheme_and_hash_counts(tpm: Tpm) -> None:
    claims = judged(tpm, TrustedAks(keys=frozenset({tpm.spki})))
    assert (claims.raw["signature_alg"], claims.raw["signature_hash"]) == (tpm.scheme, tpm.hash)
    other = tpm.attest(SELECTED, nonce=b"other")
    assert "not signed by this AK" in refused(tpm, TrustedAks(keys=frozenset({tpm.spki})), quote=other)


def test_several_banks_are_digested_in_the_order_of_the_quote() -> None:
    selected = {"sha384": (1, 2), "sha256": (3,)}
    claims = verify(TPM.evidence(selected), b"", roots=[], aks=PINNED, now=NOW)
    assert claims.measurements["sha384:2"] == value(2, "sha384")
    assert claims.raw["pcr_bank"] == ["sha384", "sha256"]
    assert claims.raw["pcrs"] == {"sha384": [1, 2], "sha256": [3]}


def test_sha1_is_a_condition_for_the_session_to_tolerate() -> None:
    signed = Tpm(key=TPM.key, hash="sha1")
    assert judged(signed).conditions == {"sha1"}
    banked = verify(TPM.evidence({"sha1": (0,)}), b"", roots=[], aks=PINNED, now=NOW)
    assert banked.conditions == {"sha1"}


def test_without_values_only_the_quoted_digest_is_claimed() -> None:
    assert set(judged(pcrs=...).measurements) == {"pcrs"}


def test_values_that_were_not_quoted_are_dropped() -> None:
    pcrs = {"sha256": {str(pcr): value(pcr).hex() for pcr in (0, 1, 7, 23)}, "sha1": {"0": bytes(20).hex()}}
    assert set(judged(pcrs=pcrs).measurements) == {"pcrs", "sha256:0", "sha256:7", "sha256:23"}


class TestRefusals:
    def test_a_key_that_nobody_vouches_for(self) -> None:
        assert "nobody vouches for the key that signed the quote" in refused(aks=TrustedAks())
        assert "nobody vouches" in refused(aks=TrustedAks(keys=frozenset({RSA.spki})))

    def test_a_key_that_is_not_said(self) -> None:
        assert "does not say which key signed" in refused(ak_public=...)

    def test_a_signature_of_another_key(self) -> None:
        other = Tpm()
        quote = TPM.attest(SELECTED)
        assert "not signed by this AK" in refused(signature=other.sign(quote))
        assert "the signature is of rsassa, and the AK is no such key" in refused(signature=RSA.sign(quote))
        assert "the signature is of ecdsa, and the AK is no such key" in refused(RSA, signature=TPM.sign(quote))

    def test_a_signature_of_zeros(self) -> None:
        zeros = b"\x00\x18\x00\x0b" + b"\x00\x20" + bytes(32) + b"\x00\x20" + bytes(32)
        assert "not signed by this AK" in refused(signature=zeros)

    def test_keys_that_differ(self) -> None:
        assert "name different AKs: the AK, the AK's public area" in refused(ak=RSA.spki)

    @pytest.mark.parametrize(
        ("bit", "says"),
        [(1, "fixedTPM"), (4, "fixedParent"), (5, "sensitiveDataOrigin"), (16, "restricted"), (18, "sign")],
    )
    def test_a_key_that_may_leave_its_tpm_or_sign_anything(self, bit: int, says: str) -> None:
        area = TPM.public_area(attributes=ATTRIBUTES & ~(1 << bit))
        said = refused(ak_public=area)
        assert said.startswith("the AK is not a restricted signing key of its TPM: it would sign what the TPM did not")
        assert said.endswith(f"its attributes lack {says}")

    def test_a_key_that_decrypts(self) -> None:
        assert "lack no decrypt" in refused(ak_public=TPM.public_area(attributes=ATTRIBUTES | 1 << 17))

    @pytest.mark.parametrize(
        "key",
        [
            rsa.generate_private_key(65537, 1024),
            ec.generate_private_key(ec.SECP256K1()),
            ed25519.Ed25519PrivateKey.generate(),
        ],
        ids=["rsa1024", "secp256k1", "ed25519"],
    )
    def test_a_key_of_another_kind(self, key: rsa.RSAPrivateKey) -> None:
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert "neither an RSA key of 2048 to 4096 bits nor one of P-256" in refused(ak_public=..., ak=spki)

    def test_what_is_no_key(self) -> None:
        with pytest.raises(EvidenceFormatError, match="the AK is not a public key in DER"):
            judged(ak_public=..., ak=b"x")

    def test_values_that_are_missing_or_not_the_quoted_ones(self) -> None:
        given = {str(pcr): value(pcr).hex() for pcr in (0, 7)}
        assert "values of quoted PCRs are missing: sha256:23" in refused(pcrs={"sha256": given})
        other = {"sha256": {**given, "23": bytes(32).hex()}}
        assert "the PCR values are not the quoted ones" in refused(pcrs=other)

    def test_a_quoted_digest_of_another_hash(self) -> None:
        quote = TPM.attest(SELECTED, digest=bytes(20))
        said = refused(quote=quote, signature=TPM.sign(quote), pcrs=...)
        assert "the quoted digest has 20 bytes, expected one of the signature's sha256" in said


def certified(tpm: Tpm, issuer: Holder = MIDDLE, **how: Any) -> bytes:
    """An AK certificate with an empty subject, as makers of TPMs issue them, and its issuers, in PEM."""
    return certificate_of(tpm, issuer, **how) + issuer.pem


def certificate_of(
    tpm: Tpm,
    issuer: Holder,
    *,
    signs: bool | None = True,
    critical: x509.ExtensionType | None = None,
    ca: bool = False,
) -> bytes:
    names = x509.SubjectAlternativeName(
        [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a TPM")]))]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(tpm.key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(names, critical=True)
    )
    if signs is not None:
        uses = dict.fromkeys(
            (
                "content_commitment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=signs, key_encipherment=not signs, **uses), critical=True
        )
    if critical is not None:
        builder = builder.add_extension(critical, critical=True)
    from cryptography.hazmat.primitives import hashes

    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


BELOW_ROOT = TrustedAks(roots=(ROOT.root(),))


def by_certificate(certificates: bytes, aks: TrustedAks = BELOW_ROOT) -> Claims:
    return verify(TPM.evidence(SELECTED), wire({"ak": certificates.decode()}), roots=[], aks=aks, now=NOW)


class TestCertificates:
    @pytest.mark.parametrize("signs", [True, None])
    def test_a_certificate_below_a_root_of_the_owner_vouches_for_the_key(self, signs: bool | None) -> None:
        claims = by_certificate(certified(TPM, signs=signs))
        assert claims.raw["ak_trust"] == "certificate"
        assert claims.raw["ak_cert_subject_empty"] is True
        assert not claims.software

    def test_the_certificate_says_which_key_signed(self) -> None:
        evidence = TPM.evidence(SELECTED, ak_public=...)
        claims = verify(evidence, wire({"ak": certified(TPM).decode()}), roots=[], aks=BELOW_ROOT, now=NOW)
        assert claims.platform_id == hashlib.sha256(TPM.spki).hexdigest()

    def test_a_software_root_makes_software_evidence(self) -> None:
        claims = by_certificate(certified(TPM), TrustedAks(roots=(ROOT.root(software=True),)))
        assert (claims.software, claims.debug) == (True, True)

    def test_a_pinned_key_needs_no_chain(self) -> None:
        assert by_certificate(certificate_of(TPM, MIDDLE), PINNED).raw["ak_trust"] == "pinned"

    @pytest.mark.parametrize(
        ("certificates", "aks", "says"),
        [
            (certified(TPM), TrustedAks(), "a root that this service does not trust"),
            (certified(TPM), TrustedAks(roots=(issue("TPM maker").root(),)), "a root that this service does not trust"),
            (certified(TPM, signs=False), BELOW_ROOT, "for a key that may not sign"),
            (certified(RSA), BELOW_ROOT, "name different AKs: the AK's public area, the AK's certificate"),
            (
                certified(TPM, critical=x509.TLSFeature([x509.TLSFeatureType.status_request])),
                BELOW_ROOT,
                "has the critical extension 1.3.6.1.5.5.7.1.24, unknown here",
            ),
            (certified(TPM) + pem(revoke(MIDDLE, 7)), BELOW_ROOT, "is revoked"),
        ],
    )
    def test_what_vouches_for_nothing(self, certificates: bytes, aks: TrustedAks, says: str) -> None:
        with pytest.raises(EvidenceRefusedError, match=says):
            by_certificate(certificates, aks)

    def test_a_certificate_that_is_a_ca_s(self) -> None:
        with pytest.raises(EvidenceFormatError, match="0 certificates that are no CA"):
            by_certificate(certified(TPM, ca=True))

    def test_a_critical_extension_of_a_ca_is_not_understood(self) -> None:
        names = x509.SubjectAlternativeName([x509.DNSName("ca")])
        middle = issue("TPM maker, 2027", ROOT, extensions=[(names, True)])
        with pytest.raises(EvidenceRefusedError, match=r"the critical extension 2\.5\.29\.17, unknown here"):
            by_certificate(certified(TPM, middle))


def bound(chip: Chip = CHIP, report: Mapping[int, bytes] | None = None, **changes: object) -> bytes:
    """Evidence of Azure's vTPM of the simulated key RSA; report: fields of the SNP report."""
    claims = runtime_claims(RSA.key.public_key())  # type: ignore[arg-type]
    fields = {0x050: hashlib.sha256(claims).digest() + bytes(32), **(report or {})}
    hcl = hcl_report(RSA.key.public_key(), report=chip.report(fields), claims=claims)  # type: ignore[arg-type]
    return RSA.evidence(SELECTED, **{"hcl_report": hcl, "ak_public": ..., **changes})


SNP = wire({"snp": CHIP.endorsements.decode()})
HARDWARE = [CHIP.root.root()]


class TestAzure:
    def test_the_claims_are_those_of_the_report(self) -> None:
        claims = verify(bound(), SNP, roots=HARDWARE, aks=TrustedAks(), now=NOW)
        assert claims.tee == "snp"
        assert claims.identity == MEASUREMENT
        assert claims.measurements["sha256:7"] == value(7)
        assert claims.report_data == NONCE
        assert (claims.raw["ak_trust"], claims.raw["vm_unique_id"], claims.raw["hcl_user_data"]) == ("snp", "ID", "00")
        assert claims.raw["snp_measurement"] == MEASUREMENT.hex()

    def test_debug_is_that_of_the_guest(self) -> None:
        evidence = bound(report={0x008: (1 << 19 | 1 << 17).to_bytes(8, "little")})
        assert verify(evidence, SNP, roots=HARDWARE, aks=TrustedAks(), now=NOW).debug

    def test_sha1_counts_beside_the_conditions_of_the_hardware(self) -> None:
        evidence = bound(quote=(quote := RSA.attest({"sha1": (0,)})), signature=RSA.sign(quote), pcrs=...)
        assert verify(evidence, SNP, roots=HARDWARE, aks=TrustedAks(), now=NOW).conditions == {"sha1"}

    def test_a_pinned_key_does_not_spare_the_report(self) -> None:
        with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
            verify(bound(), SNP, roots=[], aks=PINNED, now=NOW)

    @pytest.mark.parametrize("vmpl", [1, 2, 3])
    def test_a_report_that_the_guests_own_system_may_have_asked_for_is_refused(self, vmpl: int) -> None:
        evidence = bound(report={0x030: vmpl.to_bytes(4, "little")})
        with pytest.raises(EvidenceRefusedError, match=f"the SNP report is of VMPL {vmpl}"):
            verify(evidence, SNP, roots=HARDWARE, aks=TrustedAks(), now=NOW)

    def test_runtime_claims_that_the_report_does_not_have_are_refused(self) -> None:
        other = hcl_report(RSA.key.public_key(), report=CHIP.report())  # type: ignore[arg-type]
        with pytest.raises(EvidenceRefusedError, match="not the one that the hardware vouches for"):
            verify(bound(hcl_report=other), SNP, roots=HARDWARE, aks=TrustedAks(), now=NOW)

    def test_a_quote_of_another_key_is_refused(self) -> None:
        evidence = bound(ak_public=TPM.public_area())
        with pytest.raises(EvidenceRefusedError, match="name different AKs: the AK's public area, the HCL report"):
            verify(evidence, SNP, roots=HARDWARE, aks=PINNED, now=NOW)

    def test_an_sgx_quote_is_no_td_quote(self, platform: SgxPlatform) -> None:
        claims = runtime_claims(RSA.key.public_key())  # type: ignore[arg-type]
        data = hashlib.sha256(claims).digest() + bytes(32)
        hcl = hcl_report(RSA.key.public_key(), kind=4, claims=claims)  # type: ignore[arg-type]
        evidence = bound(hcl_report=hcl, td_quote=platform.quote(report_data=data))
        endorsements = wire({"tdx": platform.collateral().decode()})
        verifier = Verifier((platform.software_root,), TrustedAks())
        with pytest.raises(EvidenceRefusedError, match="what was sent as the TD quote is another quote"):
            verifier.verify(evidence, endorsements, now=PLATFORM_NOW)


LOG = spec_id() + event(0, 8, b"firmware") + event(4, 0x80000003, b"loader") + event(4, 0x80000003, b"kernel")
LED_TO = {
    0: hashlib.sha256(bytes(32) + hashlib.sha256(b"firmware").digest()).digest(),
    4: hashlib.sha256(
        hashlib.sha256(bytes(32) + hashlib.sha256(b"loader").digest()).digest() + hashlib.sha256(b"kernel").digest()
    ).digest(),
}


class TestEventLogs:
    def quoted(self, log: bytes, values: Mapping[int, bytes], bank: str = "sha256") -> Claims:
        return verify(self.evidence(log, values, bank), b"", roots=[], aks=PINNED, now=NOW)

    def evidence(self, log: bytes, values: Mapping[int, bytes], bank: str = "sha256") -> bytes:
        digest = hashlib.sha256(b"".join(values[pcr] for pcr in sorted(values))).digest()
        quote = TPM.attest({bank: tuple(values)}, digest=digest)
        return TPM.evidence(
            {},
            quote=quote,
            signature=TPM.sign(quote),
            event_log=log,
            pcrs={bank: {str(pcr): register.hex() for pcr, register in values.items()}},
        )

    def test_events_of_quoted_registers_are_claims(self) -> None:
        claims = self.quoted(LOG, LED_TO)
        assert claims.raw["event_log_pcrs"] == [0, 4]
        assert claims.raw["events"] == {
            "0": [hashlib.sha256(b"firmware").hexdigest()],
            "4": [hashlib.sha256(b"loader").hexdigest(), hashlib.sha256(b"kernel").hexdigest()],
        }

    def test_what_was_not_quoted_and_what_has_no_event_is_not_judged(self) -> None:
        claims = self.quoted(LOG, {4: LED_TO[4], 10: b"i" * 32})
        assert claims.raw["event_log_pcrs"] == [4]
        assert claims.measurements["sha256:10"] == b"i" * 32

    def test_every_register_that_the_log_does_not_lead_to_is_named(self) -> None:
        with pytest.raises(EvidenceRefusedError) as caught:
            self.quoted(LOG, {0: bytes(32), 4: b"x" * 32, 7: bytes(32)})
        message, *each = caught.value.chain
        assert message == "the event log does not lead to the quoted PCRs"
        assert each == [
            f"sha256:0 is {bytes(32).hex()} and the log leads to {LED_TO[0].hex()}",
            f"sha256:4 is {(b'x' * 32).hex()} and the log leads to {LED_TO[4].hex()}",
        ]

    def test_a_log_of_another_bank_is_refused(self) -> None:
        with pytest.raises(EvidenceRefusedError, match="no digests of a quoted bank: it has sha1"):
            self.quoted(old_event(0, 8, bytes(20)), {0: bytes(32)})

    def test_a_log_without_values_is_refused(self) -> None:
        assert "an event log without PCR values" in refused(pcrs=..., event_log=LOG)

    def test_a_log_of_sha1_alone(self) -> None:
        digest = hashlib.sha1(b"firmware").digest()
        led_to = hashlib.sha1(bytes(20) + digest).digest()
        claims = self.quoted(old_event(0, 8, digest), {0: led_to}, "sha1")
        assert claims.raw["events"] == {"0": [digest.hex()]}

    def test_a_log_is_read_once_and_held_against_each_quote(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = Verifier((), PINNED)
        first = verifier.verify(self.evidence(LOG, LED_TO), b"", now=NOW)
        monkeypatch.setattr("ostiary.evidence.tpm.verify.parse_event_log", None)
        assert verifier.verify(self.evidence(LOG, LED_TO), b"", now=NOW) == first
        with pytest.raises(EvidenceRefusedError, match="does not lead to the quoted PCRs"):
            verifier.verify(self.evidence(LOG, {**LED_TO, 4: bytes(32)}), b"", now=NOW)

    def test_a_log_is_remembered_with_authentic_evidence_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = Verifier((), PINNED)
        with pytest.raises(EvidenceRefusedError):
            verifier.verify(self.evidence(LOG, {0: bytes(32)}), b"", now=NOW)
        monkeypatch.setattr("ostiary.evidence.tpm.verify.parse_event_log", None)
        with pytest.raises(TypeError):
            verifier.verify(self.evidence(LOG, LED_TO), b"", now=NOW)

    def test_the_log_used_least_recently_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ostiary.evidence.tpm.verify.MAX_LOGS", 1)
        verifier = Verifier((), PINNED)
        for log in (LOG, LOG + event(9, 3, b"note"), LOG):
            assert verifier.verify(self.evidence(log, LED_TO), b"", now=NOW).raw["event_log_pcrs"] == [0, 4]


class TestRemembering:
    def test_a_chain_is_verified_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = Verifier((), BELOW_ROOT)
        endorsements = wire({"ak": certified(TPM).decode()})
        first = verifier.verify(TPM.evidence(SELECTED), endorsements, now=NOW)
        monkeypatch.setattr("ostiary.evidence.tpm.verify.verify_chain", None)
        assert verifier.verify(TPM.evidence(SELECTED), endorsements, now=NOW).identity == first.identity

    def test_it_is_not_believed_after_its_end(self) -> None:
        verifier = Verifier((), BELOW_ROOT)
        endorsements = wire({"ak": certified(TPM).decode()})
        verifier.verify(TPM.evidence(SELECTED), endorsements, now=NOW)
        with pytest.raises(EvidenceRefusedError, match="has run out"):
            verifier.verify(TPM.evidence(SELECTED), endorsements, now=NOW + timedelta(days=2))

    def test_the_least_recently_used_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ostiary.evidence.tpm.verify.MAX_CHAINS", 1)
        verifier = Verifier((), BELOW_ROOT)
        for tpm in (TPM, RSA, TPM):
            endorsements = wire({"ak": certified(tpm).decode()})
            assert verifier.verify(tpm.evidence(SELECTED), endorsements, now=NOW).tee == "tpm"


def test_a_pinned_key_is_read_from_pem_or_der() -> None:
    assert pinned_ak(TPM.pem) == pinned_ak(TPM.spki) == TPM.spki


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not a public key in PEM or DER; give ak_pub.pem"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key in PEM or DER"),
        (bytes(MAX_KEY_BYTES + 1), "the AK has 4097 bytes, expected a public key of at most 4096"),
    ],
)
def test_what_is_no_key_cannot_be_pinned(text: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        pinned_ak(text)


def test_pinned_keys_are_not_printed() -> None:
    assert "keys" not in repr(PINNED)


def test_banks_of_the_simulator_are_those_of_the_product() -> None:
    from ostiary.evidence.tpm.layout import HASHES

    assert {name: number for number, name in HASHES.items()} == BANKS
