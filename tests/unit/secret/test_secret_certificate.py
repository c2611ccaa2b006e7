"""Certificates: what stands in them, what openssl says to them, and which are not made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ostiary.errors import InputError
from ostiary.secret.certificate import (
    FOREVER,
    MAX_CHAIN_CERTIFICATES,
    NOT_BEFORE_SKEW,
    issue_certificate,
    needs_renewal,
    parse_certificate,
    renewal_time,
)
from ostiary.secret.format import public_text
from ostiary.secret.pem import encode_pem
from ostiary.secret.private_key import KEY_TYPES, generate_private_key, load_private_key
from ostiary.secret.value import CertificateValue, PrivateKeyValue, Value
from ostiary.session.model import PrivateKeySecret, X509CaSecret, X509Secret

Issue = Callable[..., CertificateValue]
NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
LONG_NAME = "n" * 65
LONG_DNS = ".".join(["label"] * 20)


@pytest.fixture
def issue(randbytes: Callable[[int], bytes], keys: Mapping[str, Value]) -> Issue:
    def run(
        secret: X509CaSecret | X509Secret,
        issuer: CertificateValue | None = None,
        key_type: str = "P-256",
        now: datetime = NOW,
    ) -> CertificateValue:
        key = keys[key_type]
        assert isinstance(key, PrivateKeyValue)
        return issue_certificate(secret, key=key, issuer=issuer, random=randbytes, now=now)

    return run


def parsed(value: Value) -> x509.Certificate:
    assert isinstance(value, CertificateValue)
    return x509.load_der_x509_certificate(value.certificate_der)


def extension(value: Value, kind: type[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    return parsed(value).extensions.get_extension_for_class(kind)


def names(value: Value) -> list[str]:
    found = extension(value, x509.SubjectAlternativeName).value
    assert isinstance(found, x509.SubjectAlternativeName)
    return found.get_values_for_type(x509.DNSName)


def openssl_verify(directory: Path, value: Value, *options: str, strict: bool = True) -> str:
    """What `openssl verify` says at NOW, with the root as the only trust anchor."""
    assert isinstance(value, CertificateValue)
    *between, root = (value.certificate_der, *value.chain_der)
    files = {"leaf": [value.certificate_der], "between": between, "root": [root]}
    for name, certificates in files.items():
        (directory / name).write_bytes(b"".join(encode_pem("CERTIFICATE", der) for der in certificates))
    command = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-CAfile", "root"]
    command += ["-x509_strict"] if strict else []
    command += ["-untrusted", "between"] if between else []
    done = subprocess.run([*command, *options, "leaf"], cwd=directory, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def test_a_chain_verifies_strictly_for_its_purpose_and_host_name(tmp_path: Path, chain: Mapping[str, Value]) -> None:
    """Feature F109."""
    options = ["-purpose", "sslserver", "-verify_hostname", "db.example.com"]
    assert openssl_verify(tmp_path, chain["leaf"], *options) == "leaf: OK"


def test_a_server_certificate_is_no_client_certificate(tmp_path: Path, chain: Mapping[str, Value]) -> None:
    assert "unsuitable certificate purpose" in openssl_verify(tmp_path, chain["leaf"], "-purpose", "sslclient")


def test_a_certificate_without_endpoint_serves_both_ends(tmp_path: Path, issue: Issue) -> None:
    value = issue(X509Secret(name="both"))
    for purpose in ("sslserver", "sslclient"):
        assert openssl_verify(tmp_path, value, "-purpose", purpose) == "leaf: OK"


@pytest.mark.parametrize("name", ["root", "middle"])
def test_a_ca_certificate_verifies_strictly_as_a_ca(tmp_path: Path, chain: Mapping[str, Value], name: str) -> None:
    assert openssl_verify(tmp_path, chain[name], "-purpose", "crlsign") == "leaf: OK"


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_every_key_type_certifies_itself_and_others(tmp_path: Path, issue: Issue, key_type: str) -> None:
    """Feature F108."""
    root = issue(X509CaSecret(name="root"), key_type=key_type)
    leaf = issue(X509Secret(name="leaf", endpoint="client"), root, key_type="P-256")
    assert openssl_verify(tmp_path, leaf, "-purpose", "sslclient") == "leaf: OK"
    lone = issue(X509Secret(name="lone", endpoint="server"), key_type=key_type)
    assert openssl_verify(tmp_path, lone, "-purpose", "sslserver") == "leaf: OK"


def test_a_leaf_named_as_its_ca_still_verifies(tmp_path: Path, generated: Callable[..., dict[str, Value]]) -> None:
    values = generated(
        PrivateKeySecret(name="k1"),
        PrivateKeySecret(name="k2"),
        X509CaSecret(name="ca", private_key="k1", common_name="Same"),
        X509Secret(name="leaf", private_key="k2", issuer="ca", common_name="Same"),
    )
    assert openssl_verify(tmp_path, values["leaf"]) == "leaf: OK"


def test_version_serial_and_period(issue: Issue) -> None:
    certificate = parsed(issue(X509Secret(name="c", valid_for=timedelta(days=90)), now=NOW.replace(microsecond=5)))
    assert certificate.version is x509.Version.v3
    assert certificate.serial_number.bit_length() == 159
    assert certificate.not_valid_before_utc == NOW - NOT_BEFORE_SKEW
    assert certificate.not_valid_after_utc == NOW + timedelta(days=90)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_a_serial_is_positive_and_20_bytes_whatever_is_drawn(keys: Mapping[str, Value], byte: bytes) -> None:
    key = keys["P-256"]
    assert isinstance(key, PrivateKeyValue)
    value = issue_certificate(X509Secret(name="c"), key=key, issuer=None, random=lambda n: byte * n, now=NOW)
    assert 0 < parsed(value).serial_number < 1 << 159


def test_without_valid_for_a_certificate_has_no_well_defined_end(issue: Issue) -> None:
    value = issue(X509CaSecret(name="ca"))
    assert value.not_after == parsed(value).not_valid_after_utc == FOREVER
    assert issue(X509CaSecret(name="ca", valid_for=timedelta.max)).not_after == FOREVER


def test_a_certificate_does_not_outlive_its_issuer(issue: Issue) -> None:
    root = issue(X509CaSecret(name="ca", valid_for=timedelta(days=10)))
    assert issue(X509Secret(name="c"), root).not_after == root.not_after
    assert issue(X509Secret(name="c", valid_for=timedelta(days=9)), root).not_after == NOW + timedelta(days=9)


def test_a_ca_may_sign_and_nothing_else(issue: Issue) -> None:
    value = issue(X509CaSecret(name="ca"))
    constraints, usage = extension(value, x509.BasicConstraints), extension(value, x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    assert usage.critical
    assert isinstance(usage.value, x509.KeyUsage)
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature


@pytest.mark.parametrize(("key_type", "key_encipherment"), [("P-256", False), ("Ed25519", False), ("RSA-2048", True)])
def test_an_end_entity_may_not_sign_certificates(issue: Issue, key_type: str, key_encipherment: bool) -> None:
    value = issue(X509Secret(name="c"), key_type=key_type)
    usage = extension(value, x509.KeyUsage).value
    assert isinstance(usage, x509.KeyUsage)
    assert usage.digital_signature
    assert usage.key_encipherment == key_encipherment
    assert not usage.key_cert_sign
    assert extension(value, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)


@pytest.mark.parametrize(
    ("endpoint", "usage"),
    [("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)],
)
def test_endpoint_sets_the_extended_key_usage(issue: Issue, endpoint: str, usage: x509.ObjectIdentifier) -> None:
    """Feature F111."""
    value = issue(X509Secret(name="c", endpoint=endpoint))
    assert extension(value, x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage([usage])


def test_without_endpoint_and_dns_their_extensions_are_absent(issue: Issue) -> None:
    """Feature F111."""
    found = {type(one.value) for one in parsed(issue(X509Secret(name="c"))).extensions}
    assert found == {x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier}


@pytest.mark.parametrize(
    ("secret", "name"),
    [
        (X509Secret(name="secret", common_name="given \u00e9", dns=("a.example",)), "given \u00e9"),
        (X509Secret(name="secret", dns=("a.example", "b.example")), "a.example"),
        (X509Secret(name="secret"), "secret"),
        (X509CaSecret(name="secret", common_name="My own CA"), "My own CA"),
        (X509CaSecret(name="n" * 64), "n" * 64),
    ],
)
def test_the_common_name_is_given_else_first_dns_else_the_secrets(
    issue: Issue, secret: X509CaSecret | X509Secret, name: str
) -> None:
    """Feature F110."""
    subject = parsed(issue(secret)).subject
    assert [attribute.value for attribute in subject] == [name]
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)


def test_dns_names_stand_once_each_and_not_critical(issue: Issue) -> None:
    """Feature F112."""
    value = issue(X509Secret(name="c", dns=("b.example", "*.a.example", "b.example", "under_score", "10.0.0.1")))
    assert names(value) == ["b.example", "*.a.example", "under_score", "10.0.0.1"]
    assert not extension(value, x509.SubjectAlternativeName).critical


def test_san_holds_names_and_addresses_once_each(tmp_path: Path, issue: Issue) -> None:
    """Feature F113: host names, wildcards, IPv4 and IPv6; what openssl makes of them."""
    v4, v6 = ip_address("192.0.2.7"), ip_address("2001:db8::1")
    secret = X509Secret(name="c", endpoint="server", san=(v4, "a.example", "*.api.example", v6, "a.example", v4))
    value = issue(secret, issue(X509CaSecret(name="ca")))
    found = extension(value, x509.SubjectAlternativeName).value
    assert isinstance(found, x509.SubjectAlternativeName)
    assert list(found) == [
        x509.IPAddress(v4),
        x509.DNSName("a.example"),
        x509.DNSName("*.api.example"),
        x509.IPAddress(v6),
    ]
    for matching in (
        ["-verify_hostname", "a.example"],
        ["-verify_hostname", "x.api.example"],
        ["-verify_ip", "192.0.2.7"],
        ["-verify_ip", "2001:db8::1"],
    ):
        assert openssl_verify(tmp_path, value, "-purpose", "sslserver", *matching) == "leaf: OK"
    assert "hostname mismatch" in openssl_verify(tmp_path, value, "-verify_hostname", "b.example")
    assert "IP address mismatch" in openssl_verify(tmp_path, value, "-verify_ip", "192.0.2.8")


@pytest.mark.parametrize(
    ("secret", "name"),
    [
        (X509Secret(name="c", san=(ip_address("192.0.2.7"), "b.example", "a.example")), "b.example"),
        (X509Secret(name="c", san=(ip_address("192.0.2.7"),)), "c"),
        (X509Secret(name="c", san=("b.example",), common_name="given"), "given"),
    ],
)
def test_the_first_host_name_of_san_is_the_common_name(issue: Issue, secret: X509Secret, name: str) -> None:
    """Feature F110: addresses are no common names."""
    assert [attribute.value for attribute in parsed(issue(secret)).subject] == [name]


def test_san_of_a_client_is_accepted(tmp_path: Path, issue: Issue) -> None:
    value = issue(X509Secret(name="c", endpoint="client", san=("a.example",)))
    assert openssl_verify(tmp_path, value, "-purpose", "sslclient") == "leaf: OK"


def test_a_dns_name_too_long_for_a_subject_stands_alone_and_critical(tmp_path: Path, issue: Issue) -> None:
    value = issue(X509Secret(name="c", dns=(LONG_DNS,), endpoint="server"), issue(X509CaSecret(name="ca"), None))
    assert not parsed(value).subject.rdns
    assert extension(value, x509.SubjectAlternativeName).critical
    assert openssl_verify(tmp_path, value, "-purpose", "sslserver", "-verify_hostname", LONG_DNS) == "leaf: OK"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (
            X509Secret(name="c", common_name=LONG_NAME, dns=("a.example",)),
            "the common name has 65 characters, expected",
        ),
        (X509Secret(name="c", common_name=""), "the common name has 0 characters, expected 1 to 64; give a shorter"),
        (X509Secret(name=LONG_NAME), "the common name has 65 characters, expected 1 to 64; give a shorter common_name"),
        (X509CaSecret(name=LONG_NAME), "the common name has 65 characters, expected 1 to 64; give a shorter"),
        (X509Secret(name="c", dns=(LONG_DNS,)), "the common name has 119 characters, expected 1 to 64"),
        (X509Secret(name="c", common_name="a\nb"), "the common name has characters that cannot be printed; give"),
        (X509Secret(name="c", common_name="a\u202eb"), "the common name has characters that cannot be printed; give"),
        (X509Secret(name="c", endpoint="both"), "endpoint is 'both', expected 'server' or 'client'"),
        (X509Secret(name="c", dns=("b\u00fccher.example",)), "dns has 'b\u00fccher.example', expected an ASCII host"),
        (X509Secret(name="c", san=("a b",)), "dns has 'a b', expected an ASCII host name such as"),
        (X509Secret(name="c", dns=("a..b",)), "dns has 'a..b', expected an ASCII host name such as"),
        (X509Secret(name="c", dns=("a b",)), "dns has 'a b', expected an ASCII host name such as"),
        (X509Secret(name="c", dns=("a.*.b",)), "dns has 'a.*.b', expected an ASCII host name such as"),
        (X509Secret(name="c", dns=("a\n",)), "the common name has characters that cannot be printed"),
        (X509Secret(name="c", common_name="c", dns=("a\n",)), r"dns has 'a\n', expected an ASCII host name such as"),
        (X509Secret(name="c", common_name="c", dns=("",)), "dns has '', expected an ASCII host name such as"),
        (X509Secret(name="c", common_name="c", dns=("a" * 64,)), "expected an ASCII host name such as"),
        (X509Secret(name="c", common_name="c", dns=("a." * 127 + "a",)), "expected an ASCII host name such as"),
    ],
)
def test_names_that_do_not_fit_into_a_certificate_are_refused(
    issue: Issue, secret: X509CaSecret | X509Secret, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        issue(secret)
    assert message in str(caught.value)


def outside_ca(
    *, path_length: int | None = None, cert_sign: bool = True, is_ca: bool = True, key_id: bool = False
) -> tuple[str, PrivateKeyValue]:
    """A CA as someone else might make it: PEM, and its key."""
    key = generate_private_key("P-384")
    private = load_private_key(key)
    name = x509.Name(
        [x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, "Outside")]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=cert_sign,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if key_id:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(b"our own numbering"), critical=False)
    return builder.sign(private, hashes.SHA384()).public_bytes(Encoding.PEM).decode(), key


@pytest.mark.parametrize("key_id", [True, False])
def test_an_outside_ca_issues_under_its_own_name_and_key_identifier(tmp_path: Path, issue: Issue, key_id: bool) -> None:
    text, key = outside_ca(path_length=0, key_id=key_id)
    leaf = issue(X509Secret(name="leaf", endpoint="client"), parse_certificate(text, key=key))
    assert leaf.not_after == NOW + timedelta(days=30)
    assert parsed(leaf).issuer.rfc4514_string() == "CN=Outside,C=DE"
    assert openssl_verify(tmp_path, leaf, "-purpose", "sslclient", strict=key_id) == "leaf: OK"
    authority = extension(leaf, x509.AuthorityKeyIdentifier).value
    assert isinstance(authority, x509.AuthorityKeyIdentifier)
    assert (authority.key_identifier == b"our own numbering") == key_id


def test_an_issuer_that_is_no_ca_is_refused(issue: Issue) -> None:
    """Feature F109."""
    with pytest.raises(InputError, match=r"^the issuer is not a CA certificate; name an x509-ca secret$"):
        issue(X509Secret(name="c"), issue(X509Secret(name="leaf")))


def test_an_issuer_that_may_not_sign_certificates_is_refused(issue: Issue) -> None:
    text, key = outside_ca(cert_sign=False)
    with pytest.raises(InputError, match=r"^the key usage of the issuer has no certificate signing; give another"):
        issue(X509Secret(name="c"), parse_certificate(text, key=key))


def test_an_issuer_whose_path_length_is_used_up_is_refused(issue: Issue) -> None:
    text, key = outside_ca(path_length=1)
    first = issue(X509CaSecret(name="one"), parse_certificate(text, key=key))
    with pytest.raises(InputError, match=r"^the issuer's path length is 1, expected at least 2; shorten the chain$"):
        issue(X509CaSecret(name="two"), first)
    assert len(issue(X509Secret(name="leaf"), first).chain_der) == 2


def test_an_expired_issuer_is_refused(issue: Issue) -> None:
    root = issue(X509CaSecret(name="ca", valid_for=timedelta(days=10)))
    with pytest.raises(InputError, match=r"^the issuer expired at 2030-01-11T12:00:00Z; give a newer one$"):
        issue(X509Secret(name="c"), root, now=NOW + timedelta(days=10))


def test_an_issuer_whose_key_is_not_known_is_refused(issue: Issue) -> None:
    text, _ = outside_ca()
    with pytest.raises(
        InputError, match=r"^the issuer's private key is not known here; give the issuer its private_key"
    ):
        issue(X509Secret(name="c"), parse_certificate(text, key=None))


def test_a_chain_over_the_bound_is_refused(issue: Issue) -> None:
    root = issue(X509CaSecret(name="ca"))
    full = replace(root, chain_der=(root.certificate_der,) * (MAX_CHAIN_CERTIFICATES - 1))
    assert len(issue(X509Secret(name="c"), full).chain_der) == MAX_CHAIN_CERTIFICATES
    with pytest.raises(InputError, match=r"^the chain has 17 certificates, expected at most 16$"):
        issue(X509Secret(name="c"), replace(full, chain_der=(*full.chain_der, root.certificate_der)))


def test_an_explicit_certificate_brings_its_chain(chain: Mapping[str, Value]) -> None:
    leaf = chain["leaf"]
    assert isinstance(leaf, CertificateValue)
    text = "".join(encode_pem("CERTIFICATE", der).decode() for der in (leaf.certificate_der, *leaf.chain_der))
    assert parse_certificate(text, key=None) == replace(leaf, private_key=None)
    key = chain["leaf_key"]
    assert isinstance(key, PrivateKeyValue)
    assert parse_certificate(text, key=key) == leaf


def test_an_explicit_certificate_with_another_key_is_refused(chain: Mapping[str, Value]) -> None:
    key = chain["root_key"]
    assert isinstance(key, PrivateKeyValue)
    with pytest.raises(InputError, match=r"^private_key is not the key of the certificate in value; name the matching"):
        parse_certificate(public_text(chain["leaf"]), key=key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "value is not PEM with blocks 'CERTIFICATE' only; give the certificate, then its chain"),
        ("hunter2", "value is not PEM with blocks 'CERTIFICATE' only"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "value holds a certificate that cannot be read",
        ),
        ("-----BEGIN CERTIFICATE-----\nhunter2", "value holds a certificate that cannot be read"),
        (
            "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n",
            "value is not PEM with blocks 'CERTIFICATE' only",
        ),
        ("-----BEGIN CERTIFICATE-----\n" * 18, "value holds 18 certificates, expected at most 17"),
    ],
)
def test_text_that_is_no_certificate_is_refused_without_quoting_it(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_certificate(text, key=None)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_certificate_is_due_when_a_third_of_its_lifetime_is_left(issue: Issue) -> None:
    """Feature F115."""
    value = issue(X509Secret(name="c", valid_for=timedelta(days=90)))
    assert renewal_time(value) == NOW + timedelta(days=60)
    assert not needs_renewal(value, NOW + timedelta(days=60, seconds=-1))
    assert needs_renewal(value, NOW + timedelta(days=60))


def test_a_certificate_shorter_than_the_skew_is_not_due_at_once(issue: Issue) -> None:
    value = issue(X509Secret(name="c", valid_for=timedelta(minutes=3)))
    assert not needs_renewal(value, NOW + timedelta(seconds=119))
    assert needs_renewal(value, NOW + timedelta(seconds=120))


def test_a_certificate_without_end_is_not_due_in_a_thousand_years(issue: Issue) -> None:
    assert not needs_renewal(issue(X509CaSecret(name="ca")), datetime(3030, 1, 1, tzinfo=UTC))
