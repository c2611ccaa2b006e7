"""Chains of certificates: to which root they lead, and everything that breaks them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.simulators.chains import NOW, Holder, issue, pem, revoke

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence import bundle, chain
from ostiary.evidence.bundle import parse_bundle
from ostiary.evidence.chain import VerifiedChain, parse_certificate, parse_revocation_list, verify_chain

ROOT = issue("root")
MIDDLE = issue("middle", ROOT, path_length=0)
LEAF = issue("leaf", MIDDLE, ca=False, usage="digital_signature")
OTHER = issue("other")


def verified(
    *holders: Holder, lists: tuple[x509.CertificateRevocationList, ...] = (), root: Holder = ROOT
) -> VerifiedChain:
    certificates = [holder.certificate for holder in holders]
    roots = [OTHER.root(), root.root()]
    return verify_chain(certificates, roots=roots, revocation_lists=lists, now=NOW)


def refusal(*holders: Holder, lists: tuple[x509.CertificateRevocationList, ...] = (), root: Holder = ROOT) -> str:
    with pytest.raises(EvidenceRefusedError) as caught:
        verified(*holders, lists=lists, root=root)
    return str(caught.value)


@pytest.mark.parametrize("holders", [(LEAF, MIDDLE, ROOT), (LEAF, MIDDLE)], ids=["with root", "without root"])
def test_a_chain_leads_to_the_key_of_its_root(holders: tuple[Holder, ...]) -> None:
    found = verified(*holders)
    assert found.leaf == LEAF.certificate
    assert found.root == ROOT.root()
    assert (found.not_before, found.not_after) == (NOW - timedelta(days=1), NOW + timedelta(days=1))


def test_a_root_that_was_issued_again_for_the_same_key_is_the_same_root() -> None:
    again = x509.load_der_x509_certificate(ROOT.der)
    reissued = Holder(
        certificate=x509.CertificateBuilder(
            issuer_name=again.subject,
            subject_name=again.subject,
            public_key=ROOT.key.public_key(),
            serial_number=7,
            not_valid_before=NOW - timedelta(days=9),
            not_valid_after=NOW + timedelta(days=9),
        ).sign(ROOT.key, hashes.SHA384()),
        key=ROOT.key,
    )
    assert verified(LEAF, MIDDLE, reissued).root == ROOT.root()


def test_revocation_lists_end_the_life_of_a_chain() -> None:
    found = verified(LEAF, MIDDLE, lists=(revoke(ROOT), revoke(MIDDLE, LEAF.certificate.serial_number + 1)))
    assert found.not_after == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("holders", "says"),
    [
        ((), "0 certificates in a chain, expected 1 to 8"),
        ((LEAF,) * 9, "9 certificates in a chain, expected 1 to 8"),
        ((LEAF,), "lead to a root that this service does not trust: the last of them is issued by 'CN=middle'"),
        ((MIDDLE, LEAF, ROOT), "certificate 'CN=middle' is not issued by certificate 'CN=leaf'"),
        ((LEAF, ROOT), "certificate 'CN=leaf' is not issued by certificate 'CN=root'"),
        ((issue("leaf", OTHER, ca=False), MIDDLE), "certificate 'CN=leaf' is not issued by certificate 'CN=middle'"),
        ((issue("root"),), "does not trust: the last of them is issued by 'CN=root'"),
    ],
)
def test_a_chain_that_leads_elsewhere_is_refused(holders: tuple[Holder, ...], says: str) -> None:
    assert says in refusal(*holders)


def test_names_alone_count_for_nothing() -> None:
    """A lookalike has all the names and other keys."""
    root = issue("root")
    middle = issue("middle", root)
    assert "does not trust" in refusal(issue("leaf", middle, ca=False), middle, root)


def below(signer: Holder) -> tuple[Holder, Holder]:
    return issue("leaf", signer, ca=False, usage=""), signer


@pytest.mark.parametrize(
    ("holders", "says"),
    [
        (below(issue("m", ROOT, ca=False)), "certificate 'CN=m' may not sign certificates: it is no CA"),
        (below(issue("m", ROOT, ca=None)), "certificate 'CN=m' may not sign certificates: it is no CA"),
        (below(issue("m", ROOT, usage="crl_sign")), "may not sign certificates: its key is for other uses"),
        (
            (*below(issue("a", MIDDLE)), MIDDLE),
            "certificate 'CN=middle' may have 0 CAs below it, the chain has 1",
        ),
    ],
)
def test_a_signer_that_may_not_sign_is_refused(holders: tuple[Holder, ...], says: str) -> None:
    assert says in refusal(*holders)


def test_a_signer_whose_use_is_not_limited_may_sign() -> None:
    assert verified(*below(issue("m", ROOT, usage=""))).root == ROOT.root()


def test_a_critical_extension_that_nobody_looks_at_is_refused() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert "critical extension 1.2.3.4, unknown here" in refusal(
        issue("leaf", MIDDLE, ca=False, extensions=[(unknown, True)]), MIDDLE
    )
    assert verified(issue("leaf", MIDDLE, ca=False, extensions=[(unknown, False)]), MIDDLE).root == ROOT.root()


def test_every_certificate_must_be_in_force() -> None:
    day, second = timedelta(days=3), timedelta(seconds=1)
    for start, end, says in ((NOW - day, NOW - second, "has run out"), (NOW + second, NOW + day, "is from the future")):
        middle = issue("m", ROOT, start=start, end=end)
        root = issue("r", start=start, end=end)
        assert says in refusal(issue("leaf", MIDDLE, ca=False, start=start, end=end), MIDDLE)
        assert says in refusal(issue("leaf", middle, ca=False), middle)
        assert says in refusal(issue("leaf", root, ca=False), root=root)


def test_what_was_verified_holds_between_its_bounds_only() -> None:
    found = verified(LEAF, MIDDLE)
    found.require(found.not_before)
    found.require(found.not_after)
    with pytest.raises(EvidenceRefusedError, match="and service: the chain holds from 2026-11-22T12:00:00Z"):
        found.require(found.not_before - timedelta(seconds=1))
    with pytest.raises(EvidenceRefusedError, match="endorsements: the chain held until 2026-11-24T12:00:00Z"):
        found.require(found.not_after + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("revocations", "says"),
    [
        (revoke(MIDDLE, LEAF.certificate.serial_number), "endorsements is revoked: certificate 'CN=leaf'"),
        (revoke(ROOT, MIDDLE.certificate.serial_number), "endorsements is revoked: certificate 'CN=middle'"),
        (
            revoke(MIDDLE, signer=OTHER),
            "a revocation list is not signed by a certificate of the chain: it names 'CN=mi",
        ),
        (revoke(OTHER), "a revocation list is not signed by a certificate of the chain: it names 'CN=other'"),
        (revoke(MIDDLE, start=NOW + timedelta(minutes=1)), "a revocation list is from the future"),
        (
            revoke(MIDDLE, start=NOW - timedelta(hours=2), end=NOW - timedelta(minutes=1)),
            "a certificate or revocation list has run out",
        ),
    ],
)
def test_revocation_lists_count(revocations: x509.CertificateRevocationList, says: str) -> None:
    assert says in refusal(LEAF, MIDDLE, lists=(revocations,))


def test_a_serial_number_that_another_issuer_revoked_is_not_revoked() -> None:
    assert verified(LEAF, MIDDLE, lists=(revoke(ROOT, LEAF.certificate.serial_number),)).root == ROOT.root()


def test_a_bundle_is_put_in_order_and_what_leads_nowhere_left_out() -> None:
    found = parse_bundle(b"".join((ROOT.pem, pem(revoke(ROOT)), OTHER.pem, LEAF.pem, b"\n", MIDDLE.pem)))
    assert found.chain == (LEAF.certificate, MIDDLE.certificate, ROOT.certificate)
    assert len(found.revocation_lists) == 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 certificates that are no CA, expected the one of the key that signed"),
        (ROOT.pem, "0 certificates that are no CA"),
        (LEAF.pem * 2, "2 certificates that are no CA"),
        (LEAF.pem * 9, "9 certificates and 0 revocation lists, expected at most 8 and 4"),
        (LEAF.pem + pem(revoke(ROOT)) * 5, "1 certificates and 5 revocation lists"),
        (
            LEAF.pem.replace(b"CERTIFICATE", b"PUBLIC KEY"),
            "a PEM block that is no CERTIFICATE or X509 CRL, or is damag",
        ),
        (LEAF.pem[:-40], "a PEM block that is no CERTIFICATE or X509 CRL, or is damaged"),
        (LEAF.pem.replace(b"MII", b"MI"), "a PEM block is not base64"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "not a certificate in DER that can be read",
        ),
        (LEAF.pem + b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "not a revocation list in DER"),
    ],
)
def test_a_bundle_that_is_none_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        parse_bundle(data)


def test_bounds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of certificates, their extensions, revocation lists, and all of it together."""
    many = [
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{number}"), b""), False)
        for number in range(chain.MAX_EXTENSIONS)
    ]
    with pytest.raises(EvidenceFormatError, match=r"^it: 3[34] extensions, expected at most 32$"):
        parse_certificate(issue("many", extensions=many).der, "it")
    with pytest.raises(EvidenceFormatError, match=r"^it: 20000 bytes, expected at most 16384$"):
        parse_certificate(bytes(20000), "it")
    monkeypatch.setattr(chain, "MAX_CRL_BYTES", 100)
    with pytest.raises(EvidenceFormatError, match=r"^it: 101 bytes, expected a revocation list of at most 100$"):
        parse_revocation_list(bytes(101), "it")
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 100)
    with pytest.raises(EvidenceFormatError, match=r"^endorsements: 101 bytes, expected at most 100$"):
        parse_bundle(bytes(101))


def test_what_is_far_too_large_is_refused_before_it_is_read() -> None:
    """A certificate with a million extensions, and a revocation list of 50 MB, by the sizes that they would have."""
    extensions = bytes.fromhex("300b 0604 2a03 0405 0403 0201 00".replace(" ", "")) * 1_000_000
    with pytest.raises(EvidenceFormatError, match=r"^it: \d+ bytes, expected at most 16384$"):
        parse_certificate(b"\x30\x84" + len(extensions).to_bytes(4, "big") + extensions, "it")
    entries = b"\x30\x84" + (50_000_000).to_bytes(4, "big") + bytes(50_000_000)
    with pytest.raises(EvidenceFormatError, match=r"^it: \d+ bytes, expected a revocation list of at most 4194304$"):
        parse_revocation_list(entries, "it")


def test_without_a_list_of_who_issued_a_certificate_it_is_refused_where_one_is_required() -> None:
    lists = [revoke(ROOT), revoke(MIDDLE)]
    path = [LEAF.certificate, MIDDLE.certificate]

    def verified(*given: x509.CertificateRevocationList) -> VerifiedChain:
        return verify_chain(path, roots=[ROOT.root()], revocation_lists=given, now=NOW, revocation_required=True)

    assert verified(*lists).leaf == LEAF.certificate
    for given in ([], lists[:1], lists[1:], [lists[0], lists[0]]):
        with pytest.raises(EvidenceRefusedError, match="no revocation list of who issued a certificate"):
            verified(*given)


def test_a_chain_that_is_remembered_holds_from_the_day_of_its_youngest_list_on() -> None:
    path, lists = [LEAF.certificate, MIDDLE.certificate], [revoke(ROOT), revoke(MIDDLE)]
    found = verify_chain(path, roots=[ROOT.root()], revocation_lists=lists, now=NOW)
    assert found.not_before == max(one.last_update_utc for one in lists)
    with pytest.raises(EvidenceRefusedError, match="from the future"):
        found.require(found.not_before - timedelta(seconds=1))


def test_a_use_of_the_key_that_is_critical_is_not_ignored() -> None:
    use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    assert "critical extension 2.5.29.37, unknown here" in refusal(
        issue("leaf", MIDDLE, ca=False, extensions=[(use, True)]), MIDDLE
    )
