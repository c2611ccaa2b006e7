"""Is a quote authentic? Each check of `verify` with evidence that fails it alone, and genuine quotes of hardware."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from dcap_qvl import QuotePolicy, QuoteVerifier, verify_with_root_ca  # type: ignore[import-untyped]
from tests.simulators.genuine import cases
from tests.simulators.sgx_platform import (
    LIFETIME,
    MR_ENCLAVE,
    MR_SIGNER,
    NOW,
    REPORT_DATA,
    TCB_DATE,
    SgxPlatform,
    make_platform,
    with_byte_flipped,
    with_pck_chain,
)

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, OstiaryError
from ostiary.evidence.chain import MAX_CERTIFICATE_BYTES
from ostiary.evidence.claims import Claims
from ostiary.evidence.intel.collateral import parse_collateral
from ostiary.evidence.roots import TrustedRoot, intel_root
from ostiary.evidence.sgx.layout import parse_quote
from ostiary.evidence.sgx.verify import _require_same_report, verify
from ostiary.platform import pki
from ostiary.platform.pki import Lifetime, sign_raw
from ostiary.platform.quote import Enclave, Quoter


@pytest.fixture(params=["dcap-qvl", "ours"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who decides: dcap-qvl, or the path of our own, as after dcap-qvl refused a program for its attributes."""
    if request.param == "ours":

        def refuse(*_: object) -> None:
            raise ValueError("Verification failed: Debug mode is enabled")

        monkeypatch.setattr("ostiary.evidence.intel.verify.verify_with_root_ca", refuse)
    return str(request.param)


def _refusal(quote: bytes, collateral: bytes, *roots: TrustedRoot, now: datetime = NOW) -> OstiaryError:
    with pytest.raises(OstiaryError) as refusal:
        verify(quote, collateral, roots=roots, now=now)
    return refusal.value


def test_good_quote_of_a_software_root_is_always_debug_and_software(platform: SgxPlatform) -> None:
    roots = (intel_root(), platform.software_root)
    claims = verify(platform.quote(), platform.collateral(), roots=roots, now=NOW)
    assert claims == Claims(
        tee="sgx",
        measurements={"mrenclave": MR_ENCLAVE},
        signer=MR_SIGNER,
        product_id=7,
        svn=3,
        report_data=REPORT_DATA,
        debug=True,
        software=True,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=TCB_DATE,
        platform_id=claims.platform_id,
        qe_id=bytes(16),
        issued=LIFETIME.start,
        raw=claims.raw,
    )
    assert claims.raw["mrenclave"] == MR_ENCLAVE.hex()
    assert len(bytes.fromhex(claims.platform_id)) == 16


def test_good_quote_of_a_hardware_root_is_neither(platform: SgxPlatform) -> None:
    claims = verify(platform.quote(), platform.collateral(), roots=[platform.hardware_root], now=NOW)
    assert not claims.debug
    assert not claims.software


@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded"])
def test_status_and_advisories_are_reported_and_not_judged(platform: SgxPlatform, status: str) -> None:
    collateral = platform.collateral(status=status, advisories=("INTEL-SA-00615", "INTEL-SA-00657"))
    claims = verify(platform.quote(), collateral, roots=[platform.software_root], now=NOW)
    assert claims.tcb_status == status
    assert claims.advisories == {"INTEL-SA-00615", "INTEL-SA-00657"}


def test_unknown_root_is_refused_with_what_the_owner_can_do(platform: SgxPlatform) -> None:
    refusal = _refusal(platform.quote(), platform.collateral(), intel_root(), make_platform().software_root)
    assert isinstance(refusal, EvidenceRefusedError)
    assert refusal.message == "the quote's certificates lead to a root that this service does not trust"
    assert "`ostiary serve --trust-software-root root.pem`" in str(refusal)


def test_without_roots_everything_is_refused(platform: SgxPlatform) -> None:
    assert "does not trust" in str(_refusal(platform.quote(), platform.collateral()))


def test_root_of_the_same_name_with_another_key_is_refused() -> None:
    genuine, lookalike = make_platform(), make_platform()
    assert genuine.certificates.root.subject == lookalike.certificates.root.subject
    assert "does not trust" in str(_refusal(lookalike.quote(), lookalike.collateral(), genuine.software_root))


def test_trusted_root_beside_a_foreign_chain_does_not_help(platform: SgxPlatform) -> None:
    foreign = make_platform()
    chain = foreign.certificates.pck_chain + platform.certificates.pck_chain.split(b"-----END CERTIFICATE-----\n")[-2]
    quote = with_pck_chain(foreign.quote(), chain + b"-----END CERTIFICATE-----\n")
    refusal = _refusal(quote, platform.collateral(), platform.software_root)
    assert isinstance(refusal, EvidenceRefusedError)
    assert any(word in str(refusal) for word in ("UnknownIssuer", "ForPublicKey", "is not issued by"))


def test_a_debug_enclave_of_hardware_is_authentic_and_says_so(platform: SgxPlatform) -> None:
    claims = verify(platform.quote(debug=True), platform.collateral(), roots=[platform.hardware_root], now=NOW)
    assert claims.debug
    assert not claims.software


@pytest.mark.parametrize("name", ["platform", "issuer", "tcb_signer"])
def test_revoked_certificate_is_refused(platform: SgxPlatform, name: str) -> None:
    revoked: x509.Certificate = getattr(platform.certificates, name)
    refusal = _refusal(platform.quote(), platform.collateral(revoked=[revoked]), platform.software_root)
    assert refusal.message == "a certificate of the evidence or its endorsements is revoked"


def test_revoked_tcb_level_is_refused(platform: SgxPlatform) -> None:
    refusal = _refusal(platform.quote(), platform.collateral(status="Revoked"), platform.software_root)
    assert refusal.message == "the TCB level of this platform is revoked"


def test_endorsements_that_ran_out_are_refused(platform: SgxPlatform) -> None:
    expired = Lifetime(start=NOW - timedelta(days=40), end=NOW - timedelta(days=1))
    refusal = _refusal(platform.quote(), platform.collateral(lifetime=expired), platform.software_root)
    assert refusal.message.endswith("has run out; have the platform fetch new endorsements")


def test_tcb_info_that_ran_out_is_refused_although_the_lists_hold(platform: SgxPlatform) -> None:
    old = json.loads(platform.collateral(lifetime=Lifetime(start=LIFETIME.start, end=NOW - timedelta(hours=1))))
    fresh = json.loads(platform.collateral())
    mixed = fresh | {name: old[name] for name in ("tcb_info", "tcb_info_signature")}
    refusal = _refusal(platform.quote(), json.dumps(mixed).encode(), platform.software_root)
    assert refusal.message == "the endorsements have run out; have the platform fetch new ones"


def test_endorsements_from_the_future_are_refused(platform: SgxPlatform) -> None:
    future = Lifetime(start=NOW + timedelta(days=1), end=NOW + timedelta(days=9))
    refusal = _refusal(platform.quote(), platform.collateral(lifetime=future), platform.software_root)
    assert refusal.message.endswith("from the future; compare the clocks of platform and service")


def test_certificates_that_ran_out_are_refused(platform: SgxPlatform) -> None:
    later = NOW + timedelta(days=60)
    lifetime = Lifetime(start=later - timedelta(days=1), end=later + timedelta(days=1))
    refusal = _refusal(platform.quote(), platform.collateral(lifetime=lifetime), platform.software_root, now=later)
    assert "has run out; have the platform fetch new" in refusal.message


def test_certificates_from_the_future_are_refused(platform: SgxPlatform) -> None:
    earlier = LIFETIME.start - timedelta(days=10)
    lifetime = Lifetime(start=earlier - timedelta(days=1), end=earlier + timedelta(days=1))
    refusal = _refusal(platform.quote(), platform.collateral(lifetime=lifetime), platform.software_root, now=earlier)
    assert refusal.message == "a certificate is from the future; compare the clocks of platform and service"


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (0x00C, "the quote was not made by the quoting enclave that the endorsements describe"),
        (0x01C, "the quote is not signed by its attestation key: it was changed after signing"),
        (0x030 + 0x040, "the quote is not signed by its attestation key: it was changed after signing"),
        (0x030 + 0x140, "the quote is not signed by its attestation key: it was changed after signing"),
        (0x1B4, "the quote is not signed by its attestation key: it was changed after signing"),
        (0x1F4, "the quoting enclave does not vouch for the attestation key of the quote"),
        (0x234 + 0x40, "the report of the quoting enclave is not signed by the platform's key"),
        (0x3B4, "the report of the quoting enclave is not signed by the platform's key"),
        (0x3F6, "the quoting enclave does not vouch for the attestation key of the quote"),
    ],
)
def test_changed_quote_is_refused(platform: SgxPlatform, offset: int, message: str) -> None:
    refusal = _refusal(with_byte_flipped(platform.quote(), offset), platform.collateral(), platform.software_root)
    assert refusal.message == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tcb_info", "the TCB info in the endorsements is not signed by its signer"),
        ("qe_identity", "the QE identity in the endorsements is not signed by its signer"),
    ],
)
def test_changed_endorsements_are_refused(platform: SgxPlatform, name: str, message: str) -> None:
    members = json.loads(platform.collateral())
    members[name] = members[name].replace('"tcbEvaluationDataNumber":1', '"tcbEvaluationDataNumber":2')
    refusal = _refusal(platform.quote(), json.dumps(members).encode(), platform.software_root)
    assert refusal.message == message


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("tcb_info", "4f7374696172", "4f7374696173", "the endorsements are for another kind of platform"),
        ("tcb_info", '"pcesvn":1', '"pcesvn":2', "the platform meets no TCB level of the endorsements"),
        ("tcb_info", '"id":"SGX"', '"id":"TDX"', "the endorsements are for another TEE than SGX"),
        ("qe_identity", '"isvprodid":1', '"isvprodid":2', "the quote was not made by the quoting enclave"),
        ("qe_identity", '"id":"QE"', '"id":"TD_QE"', "the endorsements are for another TEE than SGX"),
        ("qe_identity", '"attributes":"11', '"attributes":"15', "the quote was not made by the quoting enclave"),
    ],
)
def test_endorsements_for_something_else_are_refused_although_signed(
    platform: SgxPlatform, name: str, old: str, new: str, message: str
) -> None:
    members = json.loads(platform.collateral())
    assert old in members[name]
    members[name] = members[name].replace(old, new)
    members[f"{name}_signature"] = sign_raw(platform.keys.tcb_signer, members[name].encode()).hex()
    refusal = _refusal(platform.quote(), json.dumps(members).encode(), platform.software_root)
    assert isinstance(refusal, EvidenceRefusedError)
    assert message in refusal.message


def test_one_component_below_the_level_does_not_meet_it(platform: SgxPlatform) -> None:
    """Higher numbers before it do not make up for it."""
    members = json.loads(platform.collateral())
    tcb_info = json.loads(members["tcb_info"])
    tcb_info["tcbLevels"][0]["tcb"]["sgxtcbcomponents"] = [{"svn": 0}] * 15 + [{"svn": 2}]
    members["tcb_info"] = json.dumps(tcb_info)
    members["tcb_info_signature"] = sign_raw(platform.keys.tcb_signer, members["tcb_info"].encode()).hex()
    refusal = _refusal(platform.quote(), json.dumps(members).encode(), platform.software_root)
    assert refusal.message == "the platform meets no TCB level of the endorsements"


def test_quote_signed_by_another_attestation_key_is_refused(platform: SgxPlatform) -> None:
    other = make_platform()
    foreign = Quoter(
        attestation_key=other.keys.attestation,
        platform_key=other.keys.platform,
        pck_chain=platform.certificates.pck_chain,
    ).quote(Enclave(mr_enclave=MR_ENCLAVE, mr_signer=MR_SIGNER), REPORT_DATA)
    refusal = _refusal(foreign, platform.collateral(), platform.software_root)
    assert refusal.message == "the report of the quoting enclave is not signed by the platform's key"


def test_fields_other_than_the_verified_ones_are_refused(platform: SgxPlatform) -> None:
    report = verify_with_root_ca(
        platform.quote(), parse_collateral(platform.collateral()), platform.root_der, int(NOW.timestamp())
    )
    verified = json.loads(report.to_json())["report"]["SgxEnclave"]
    _require_same_report(verified, parse_quote(platform.quote()).report)
    for quote in (
        platform.quote(mr_enclave=bytes(32)),
        platform.quote(report_data=bytes(64)),
        platform.quote(debug=True),
    ):
        with pytest.raises(EvidenceRefusedError, match="dcap-qvl read other fields from the quote than this service"):
            _require_same_report(verified, parse_quote(quote).report)


def test_trailing_bytes_are_refused(platform: SgxPlatform) -> None:
    refusal = _refusal(platform.quote() + b"\1", platform.collateral(), platform.software_root)
    assert isinstance(refusal, EvidenceFormatError)
    assert "expected the end of the quote" in str(refusal)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (b"", "the PCK chain holds no certificate, expected PEM text"),
        (b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----", "a certificate of the PCK chain is not base64"),
    ],
)
def test_chain_without_certificates_is_refused(platform: SgxPlatform, chain: bytes, message: str) -> None:
    refusal = _refusal(with_pck_chain(platform.quote(), chain), platform.collateral(), platform.software_root)
    assert isinstance(refusal, EvidenceFormatError)
    assert message in str(refusal)


def test_chain_in_the_endorsements_is_not_looked_at(platform: SgxPlatform) -> None:
    foreign = make_platform()
    members = json.loads(platform.collateral())
    members["pck_certificate_chain"] = platform.certificates.pck_chain.decode()
    refusal = _refusal(foreign.quote(), json.dumps(members).encode(), platform.software_root)
    assert "does not trust" in refusal.message


@pytest.mark.parametrize(
    "case", ["sgx-dcapqvl-sample", "sgx-fraunhofer-2026", "sgx-integritee-oodconfig", "sgx-signal-svr2-2026"]
)
def test_tcb_date_agrees_with_the_level_that_dcap_qvl_finds(case: str) -> None:
    quote, collateral, now = _vector(case)
    seconds = int(now.timestamp())
    found = QuoteVerifier(intel_root().certificate_der).verify_with_policy(
        quote, parse_collateral(collateral), seconds, QuotePolicy.claims_only(seconds)
    )
    date = datetime.fromisoformat(json.loads(found.to_json())["platform"]["tcb_level"]["tcbDate"])
    assert verify(quote, collateral, roots=[intel_root()], now=now).tcb_date == date.astimezone(UTC)


def test_lookalike_pki_with_its_chain_in_the_quote_is_an_unknown_root() -> None:
    quote, collateral, now = _vector("sgx-intel-lookalike-pki")
    complete = with_pck_chain(quote, json.loads(collateral)["pck_certificate_chain"].encode())
    refusal = _refusal(complete, collateral, intel_root(), now=now)
    assert isinstance(refusal, EvidenceRefusedError)
    assert "lead to a root that this service does not trust" in refusal.message


def _vector(name: str) -> tuple[bytes, bytes, datetime]:
    (case,) = (case for case in cases("sgx") if case.name == name)
    return case.files["quote.bin"], case.files["collateral.json"], case.verify_at


def test_endorsements_that_a_platform_signed_are_refused(platform: SgxPlatform) -> None:
    """Whoever breaks one platform has a PCK key, whose certificate leads to Intel's root as well."""
    keys, root = platform.keys, platform.certificates.root
    beside = pki._certificate("x", keys.platform, root, keys.root, LIFETIME, extension=pki._sgx_extension(keys))
    broken = replace(
        platform,
        keys=replace(keys, tcb_signer=keys.platform),
        certificates=replace(platform.certificates, tcb_signer=beside),
    )
    error = _refusal(platform.quote(), broken.collateral(), platform.software_root)
    assert str(error) == "the endorsements are signed by a platform, expected Intel's TCB signer"


def _as_version_4(quote: bytes, platform: SgxPlatform) -> bytes:
    """An SGX quote of version 4, which no version of dcap-qvl decides about, of one of version 3."""
    signed = (4).to_bytes(2, "little") + quote[2:0x1B0]
    key, certified = quote[0x1F4:0x234], quote[0x234:]
    signature = sign_raw(platform.keys.attestation, signed) + key
    signature += (6).to_bytes(2, "little") + len(certified).to_bytes(4, "little") + certified
    return signed + len(signature).to_bytes(4, "little") + signature


def _in_front(platform: SgxPlatform, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The PCK chain behind a certificate that anybody made, of another platform with higher versions."""
    stranger = pki.Keys(**{name: ec.generate_private_key(ec.SECP256R1()) for name in vars(platform.keys)})
    with monkeypatch.context() as later:
        later.setattr(pki, "CPU_SVN", bytes([200]) * 16)
        extension = pki._sgx_extension(stranger)
    key = stranger.platform
    front = pki._certificate("x", key, None, key, LIFETIME, authority=True, extension=extension)
    return front.public_bytes(Encoding.PEM) + platform.certificates.pck_chain


@pytest.mark.parametrize("version", [3, 4])
def test_a_platform_has_the_versions_of_the_certificate_that_was_verified(
    platform: SgxPlatform, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    chain = _in_front(platform, monkeypatch)
    quotes = [platform.quote(), with_pck_chain(platform.quote(), chain)]
    genuine, changed = (_as_version_4(quote, platform) if version == 4 else quote for quote in quotes)
    collateral = platform.collateral()
    expected = verify(genuine, collateral, roots=[platform.hardware_root], now=NOW)
    try:
        claims = verify(changed, collateral, roots=[platform.hardware_root], now=NOW)
    except EvidenceRefusedError:
        return
    assert claims == expected


@pytest.mark.parametrize("version", [3, 4])
def test_the_roots_revocation_list_does_not_stand_in_for_that_of_the_platforms_ca(
    platform: SgxPlatform, version: int
) -> None:
    """The platform is revoked, by the list that is kept back."""
    collateral = json.loads(platform.collateral(revoked=[platform.certificates.platform]))
    collateral["pck_crl"] = collateral["root_ca_crl"]
    collateral["pck_crl_issuer_chain"] = platform.certificates.root.public_bytes(Encoding.PEM).decode()
    quote = _as_version_4(platform.quote(), platform) if version == 4 else platform.quote()
    error = _refusal(quote, json.dumps(collateral).encode(), platform.hardware_root)
    assert "revocation list of who issued a certificate" in str(error)


def test_the_list_of_the_platforms_ca_does_not_stand_in_for_that_of_the_root(platform: SgxPlatform, path: str) -> None:
    collateral = json.loads(platform.collateral(revoked=[platform.certificates.issuer]))
    collateral["root_ca_crl"] = collateral["pck_crl"]
    error = _refusal(platform.quote(), json.dumps(collateral).encode(), platform.hardware_root)
    assert ("not signed by the trusted root" if path == "dcap-qvl" else "who issued a certificate") in str(error)


def test_a_platforms_certificate_is_not_hidden_behind_pem_headers(platform: SgxPlatform) -> None:
    """dcap-qvl reads such blocks, and would take the platform for the signer of its own TCB info."""
    collateral = json.loads(platform.collateral())
    pem = platform.certificates.platform.public_bytes(Encoding.PEM).decode()
    hidden = pem.replace("CERTIFICATE-----\n", "CERTIFICATE-----\nA: b\n\n", 1)
    collateral["tcb_info_issuer_chain"] = hidden + platform.certificates.pck_chain.decode().removeprefix(pem)
    signature = sign_raw(platform.keys.platform, collateral["tcb_info"].encode())
    collateral["tcb_info_signature"] = signature.hex()
    error = _refusal(platform.quote(), json.dumps(collateral).encode(), platform.hardware_root)
    assert str(error) == "SGX quote: the issuer chain has PEM blocks that are no plain certificates"


def test_the_roots_key_counts_where_a_certificate_has_it_as_its_own_only(platform: SgxPlatform) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mention = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), platform.hardware_root.public_key)
    beside = pki._certificate("x", key, None, key, LIFETIME, authority=True, extension=mention)
    chain = [platform.certificates.platform, platform.certificates.issuer, beside]
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    error = _refusal(with_pck_chain(platform.quote(), pem), platform.collateral(), platform.hardware_root)
    assert "lead to a root that this service does not trust" in str(error)


@pytest.mark.parametrize("member", ["pck", "tcb_info_issuer_chain", "qe_identity_issuer_chain"])
def test_certificates_are_bounded_whoever_decides(platform: SgxPlatform, member: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    large = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(MAX_CERTIFICATE_BYTES))
    beside = pki._certificate("x", key, None, key, LIFETIME, authority=True, extension=large)
    pem = beside.public_bytes(Encoding.PEM)
    quote, collateral = platform.quote(), json.loads(platform.collateral())
    if member == "pck":
        quote = with_pck_chain(quote, platform.certificates.pck_chain + pem)
    else:
        collateral[member] += pem.decode()
    error = _refusal(quote, json.dumps(collateral).encode(), platform.hardware_root)
    assert f"expected at most {MAX_CERTIFICATE_BYTES}" in str(error)
