"""Generation, migration on update, and renewal: which values are new, which stay, which are not made at all."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ostiary.errors import InputError, ReleaseRefusedError, StoreError
from ostiary.secret.format import public_text
from ostiary.secret.generate import MAX_SLOW_KEYS, generate, renew
from ostiary.secret.kind import KINDS, StoredSecret
from ostiary.secret.private_key import KEY_TYPES
from ostiary.secret.render import render
from ostiary.secret.value import (
    SESSION_CA,
    AsciiValue,
    BinaryValue,
    CertificateValue,
    FragmentValue,
    PrivateKeyValue,
    Value,
)
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    AsciiSecret,
    BinarySecret,
    ConfigFragmentSecret,
    ImportedSecret,
    JwtSecret,
    PgpKeySecret,
    PrivateKeySecret,
    PublicKeySecret,
    Secret,
    Session,
    SessionCaSecret,
    X509CaSecret,
    X509Secret,
)
from ostiary.session.placeholder import parse_template

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
Generate = Callable[..., dict[str, Value]]


def certificate(value: Value) -> x509.Certificate:
    assert isinstance(value, CertificateValue)
    return x509.load_der_x509_certificate(value.certificate_der)


def text(value: Value) -> str:
    assert isinstance(value, AsciiValue)
    return value.text


def test_every_kind_of_the_model_has_an_entry() -> None:
    at_release = {ImportedSecret, AkvSecret, AadTokenSecret, JwtSecret}
    assert set(KINDS) | at_release == set(get_args(Secret))
    assert set(KINDS) == set(get_args(StoredSecret))


def test_values_come_in_the_order_of_the_text_whatever_needs_what(chain: Mapping[str, Value]) -> None:
    assert list(chain) == ["leaf", "middle", "root", "leaf_key", "middle_key", "root_key"]


def test_a_session_without_secrets_has_no_values(generated: Generate) -> None:
    assert generated() == {}


def test_ascii_values_have_their_size_and_use_the_whole_alphabet(generated: Generate) -> None:
    """Feature F094."""
    values = generated(*(AsciiSecret(name=f"s{number}") for number in range(1000)), AsciiSecret(name="one", size=1))
    assert {len(text(value)) for name, value in values.items() if name != "one"} == {20}
    assert len(text(values["one"])) == 1
    assert set("".join(map(text, values.values()))) == {chr(code) for code in range(0x21, 0x7F)}


def test_ascii_characters_are_equally_likely() -> None:
    """Every byte value once gives every character equally often: no modulo bias."""
    session = Session(version="0.3", name="s", secrets=(AsciiSecret(name="a", size=188),))
    every_byte = (bytes(range(256)) * 2)[:290]
    values = generate(session, previous={}, previous_session=None, random=lambda n: every_byte[:n], now=NOW)
    found = text(values["a"])
    assert {found.count(chr(code)) for code in range(0x21, 0x7F)} == {2}


def test_random_bytes_that_are_thrown_away_are_drawn_again() -> None:
    draws = [b"\xff" * 40, b"\x00" * 40]
    session = Session(version="0.3", name="s", secrets=(AsciiSecret(name="a"),))
    values = generate(session, previous={}, previous_session=None, random=lambda _: draws.pop(0), now=NOW)
    assert values == {"a": AsciiValue(text="!" * 20)}


def test_binary_values_are_the_random_bytes_themselves() -> None:
    source, same = random.Random(1), random.Random(1)
    session = Session(version="0.3", name="s", secrets=(BinarySecret(name="b", size=32),))
    values = generate(session, previous={}, previous_session=None, random=source.randbytes, now=NOW)
    assert values == {"b": BinaryValue(data=same.randbytes(32))}


def test_explicit_values_are_those_of_the_text(generated: Generate, keys: Mapping[str, Value]) -> None:
    """Feature F095, F096."""
    key = public_text(keys["P-384"])
    values = generated(
        AsciiSecret(name="empty", value=""),
        AsciiSecret(name="text", value="two\nlines \u00e9"),
        BinarySecret(name="data", value=b"\x00\xff"),
        PrivateKeySecret(name="key", value=key),
    )
    assert values == {
        "empty": AsciiValue(text=""),
        "text": AsciiValue(text="two\nlines \u00e9"),
        "data": BinaryValue(data=b"\x00\xff"),
        "key": keys["P-384"],
    }


def test_an_explicit_ca_issues_with_its_explicit_key(generated: Generate, chain: Mapping[str, Value]) -> None:
    """Feature F101, F109."""
    root, middle = public_text(chain["root"]), public_text(chain["middle"])
    values = generated(
        PrivateKeySecret(name="ca_key", value=public_text(chain["middle_key"])),
        X509CaSecret(name="ca", private_key="ca_key", value=middle + root),
        PrivateKeySecret(name="key"),
        X509Secret(name="tls", private_key="key", issuer="ca"),
    )
    tls, leaf = values["tls"], chain["leaf"]
    assert isinstance(tls, CertificateValue)
    assert isinstance(leaf, CertificateValue)
    assert tls.chain_der == leaf.chain_der
    certificate(tls).verify_directly_issued_by(certificate(chain["middle"]))


def test_an_explicit_certificate_needs_neither_key_nor_issuer(generated: Generate, chain: Mapping[str, Value]) -> None:
    """Feature F107."""
    value = generated(X509Secret(name="tls", issuer="elsewhere", value=public_text(chain["root"])))["tls"]
    assert isinstance(value, CertificateValue)
    assert value.private_key is None


OLD: tuple[Secret, ...] = (
    AsciiSecret(name="a"),
    BinarySecret(name="b"),
    PrivateKeySecret(name="k", migrate=True),
    X509CaSecret(name="c", private_key="k"),
)


@pytest.mark.parametrize(
    ("old", "new", "survives"),
    [
        (AsciiSecret(name="s"), AsciiSecret(name="s", export_public=True), True),
        (AsciiSecret(name="s"), AsciiSecret(name="s", size=21), False),
        (AsciiSecret(name="s"), AsciiSecret(name="other"), False),
        (AsciiSecret(name="s", value="given"), AsciiSecret(name="s"), False),
        (AsciiSecret(name="s"), AsciiSecret(name="s", value="given"), False),
        (AsciiSecret(name="s"), BinarySecret(name="s"), False),
        (BinarySecret(name="s"), BinarySecret(name="s"), True),
        (BinarySecret(name="s"), BinarySecret(name="s", size=32), False),
        (BinarySecret(name="s"), AsciiSecret(name="s"), False),
        (PrivateKeySecret(name="s"), PrivateKeySecret(name="s"), False),
        (PrivateKeySecret(name="s", migrate=True), PrivateKeySecret(name="s"), False),
        (PrivateKeySecret(name="s"), PrivateKeySecret(name="s", migrate=True), False),
        (PrivateKeySecret(name="s", migrate=True), PrivateKeySecret(name="s", migrate=True), True),
        (
            PrivateKeySecret(name="s", migrate=True),
            PrivateKeySecret(name="s", migrate=True, key_type="Ed25519"),
            False,
        ),
        (PgpKeySecret(name="s"), PgpKeySecret(name="s", export_public=True), True),
        (PgpKeySecret(name="s"), AsciiSecret(name="s"), False),
        (AsciiSecret(name="s"), PgpKeySecret(name="s"), False),
    ],
)
def test_what_survives_an_update(generated: Generate, old: Secret, new: Secret, survives: bool) -> None:
    """Feature F104, F131: four combinations of migrate; size and kind."""
    before = generated(old)
    after = generated(new, old=(old,), previous=before)
    assert (after[new.name] == before["s"]) == survives


def test_an_explicit_value_changes_with_the_text(generated: Generate) -> None:
    old, new = AsciiSecret(name="s", value="old"), AsciiSecret(name="s", value="new")
    assert generated(new, old=(old,), previous=generated(old)) == {"s": AsciiValue(text="new")}


def test_certificates_are_made_anew_at_each_update_under_a_key_that_may_stay(generated: Generate) -> None:
    """Feature F130: the serial changes."""
    before = generated(*OLD)
    after = generated(*OLD, old=OLD, previous=before)
    assert {name for name in before if before[name] == after[name]} == {"a", "b", "k"}
    old, new = certificate(before["c"]), certificate(after["c"])
    assert old.serial_number != new.serial_number
    assert old.public_key() == new.public_key()


def test_a_secret_that_is_dropped_has_no_value(generated: Generate) -> None:
    assert generated(old=OLD, previous=generated(*OLD)) == {}


def test_a_surviving_value_that_is_not_stored_is_refused_not_replaced(generated: Generate) -> None:
    with pytest.raises(StoreError, match=r"^stored values lack secret 'a' of the session; restore the record$"):
        generated(AsciiSecret(name="a"), old=(AsciiSecret(name="a"),), previous={"b": AsciiValue(text="x")})


KEY, CA = PrivateKeySecret(name="k"), X509CaSecret(name="ca", private_key="k")


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ((PublicKeySecret(name="c"),), "secret 'c': private_key is missing; name a private-key secret of this session"),
        (
            (X509Secret(name="c", private_key="k"),),
            "secret 'c': names 'k', which is no secret of this session; declare",
        ),
        ((KEY, X509Secret(name="c", private_key="k", issuer="i")), "secret 'c': names 'i', which is no secret"),
        ((AsciiSecret(name="k"), CA), "secret 'ca': private_key names 'k', which is not a private-key secret"),
        (
            (KEY, X509Secret(name="c", private_key="k", issuer="k")),
            "secret 'c': issuer names 'k', which is not an x509-",
        ),
        (
            (KEY, X509Secret(name="a", private_key="k"), X509Secret(name="b", private_key="k", issuer="a")),
            "secret 'b': the issuer is not a CA certificate; name an x509-ca secret",
        ),
        (
            (KEY, X509CaSecret(name="a", private_key="k", issuer="a")),
            "secrets: each of these is made of the next, 'a' -> 'a'; break the circle",
        ),
        (
            (
                KEY,
                X509CaSecret(name="a", private_key="k", issuer="b"),
                X509CaSecret(name="b", private_key="k", issuer="a"),
            ),
            "secrets: each of these is made of the next, ",
        ),
        ((AsciiSecret(name="a", value="hunter2\0"),), "secret 'a': value has a NUL or half a surrogate pair, which no"),
        ((AsciiSecret(name="a", value="hunter2\udc80"),), "secret 'a': value has a NUL or half a surrogate pair"),
        ((PrivateKeySecret(name="k", value="hunter2"),), "secret 'k': value holds PEM 0 blocks, expected one block"),
        ((X509Secret(name="c", value="hunter2"),), "secret 'c': value is not PEM with blocks 'CERTIFICATE' only"),
        (
            (PrivateKeySecret(name="k", key_type="RSA-4096"),),
            "secret 'k': key_type is 'RSA-4096', expected one of P-256",
        ),
        (
            tuple(PrivateKeySecret(name=f"k{number}", key_type="RSA-3072") for number in range(MAX_SLOW_KEYS + 1)),
            "secrets: 65 private keys are RSA or explicit, expected at most 64; use P-256, or several sessions",
        ),
        (
            tuple(PrivateKeySecret(name=f"k{number}", value="hunter2") for number in range(MAX_SLOW_KEYS + 1)),
            "secrets: 65 private keys are RSA or explicit, expected at most 64",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(generated: Generate, secrets: tuple[Secret, ...], message: str) -> None:
    """Feature F096, F100, F105, F109: refused also where the parser did not look."""
    with pytest.raises(InputError) as caught:
        generated(*secrets)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)


def test_a_chain_of_thousands_of_issuers_is_refused_and_does_not_overflow(generated: Generate) -> None:
    links = [X509CaSecret(name=f"ca{number}", private_key="k", issuer=f"ca{number + 1}") for number in range(5000)]
    with pytest.raises(InputError, match=r"the chain has 17 certificates, expected at most 16$"):
        generated(KEY, *links, X509CaSecret(name="ca5000", private_key="k"))


def test_every_key_type_can_be_declared(keys: Mapping[str, Value]) -> None:
    assert set(keys) == set(KEY_TYPES)


OWN_CA: tuple[Secret, ...] = (
    X509Secret(name="tls", common_name="tls"),
    SessionCaSecret(name="ca"),
    X509CaSecret(name="sub"),
)


def test_certificates_of_language_02_have_own_keys_and_are_signed_by_the_sessions_own_ca(
    generated: Generate,
) -> None:
    """Feature F122: P-256 keys; session-ca is the certificate that signed them."""
    values = generated(*OWN_CA)
    assert list(values) == ["tls", "ca", "sub", SESSION_CA]
    ca = x509.load_pem_x509_certificate(public_text(values["ca"]).encode())
    assert ca.public_bytes(Encoding.DER) == certificate(values[SESSION_CA]).public_bytes(Encoding.DER)
    assert ca.subject.rfc4514_string() == "CN=CA of session s"
    for name in ("tls", "sub"):
        certificate(values[name]).verify_directly_issued_by(ca)
    first, second = values["tls"], values["sub"]
    assert isinstance(first, CertificateValue)
    assert isinstance(second, CertificateValue)
    assert first.private_key is not None
    assert first.private_key != second.private_key
    key = certificate(first).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_the_key_of_the_sessions_own_ca_cannot_be_named(generated: Generate) -> None:
    """Feature F122: certificate only, key never; also not through the stored value itself."""
    values = generated(*OWN_CA)
    pem = public_text(values["ca"]).encode()
    assert render(parse_template("$$SCONE::ca$$"), values) == render(parse_template("$$SCONE::ca.crt$$"), values) == pem
    for form in (":privatekey", ".key", ":pkcs12-with-private-key", ":chain"):
        with pytest.raises(ReleaseRefusedError, match="secret 'ca', session-ca, "):
            render(parse_template(f"$$SCONE::ca{form}$$"), values)
    assert parse_template(f"$$SCONE::{SESSION_CA}:privatekey$$").placeholders == ()


def test_the_sessions_own_ca_lasts_over_updates_and_its_certificates_do_not(generated: Generate) -> None:
    before = generated(*OWN_CA)
    after = generated(*OWN_CA, old=OWN_CA, previous=before)
    assert {name for name in before if before[name] == after[name]} == {"ca", SESSION_CA}
    assert generated(*OWN_CA)[SESSION_CA] != before[SESSION_CA]
    assert list(generated(AsciiSecret(name="a"), old=OWN_CA, previous=before)) == ["a"]


def test_a_damaged_own_ca_is_refused_not_replaced(generated: Generate) -> None:
    before = {**generated(*OWN_CA), SESSION_CA: AsciiValue(text="hunter2")}
    with pytest.raises(
        StoreError, match=r"^the stored value of the session's own CA is of another kind; restore the re"
    ):
        generated(*OWN_CA, old=OWN_CA, previous=before)


def test_certificates_of_language_02_are_not_made_anew_at_a_release(generated: Generate) -> None:
    values = generated(*OWN_CA)
    assert renew_at(OWN_CA, values, NOW + 3650 * DAYS) == values


def test_a_public_key_follows_its_private_key(generated: Generate) -> None:
    """Feature F105, 7.2: derived again at each update."""
    secrets = (PublicKeySecret(name="pub", private_key="k"), PrivateKeySecret(name="k"))
    values = generated(*secrets)
    assert list(values) == ["pub", "k"]
    shown = load_pem_public_key(public_text(values["pub"]).encode())
    assert shown == load_pem_private_key(public_text(values["k"]).encode(), None).public_key()
    after = generated(*secrets, old=secrets, previous=values)
    assert after["pub"] != values["pub"]
    assert renew_at(secrets, after, NOW) == after


def test_an_explicit_public_key_must_be_that_of_a_private_key_beside_it(generated: Generate) -> None:
    """Feature F105."""
    key = PrivateKeySecret(name="k", migrate=True)
    values = generated(PublicKeySecret(name="pub", private_key="k"), key)
    both = PublicKeySecret(name="pub", private_key="k", value=public_text(values["pub"]))
    assert generated(both, key, old=(key,), previous=values)["pub"] == values["pub"]
    with pytest.raises(InputError, match=r"^secret 'pub': private_key is not the private key of value; name the match"):
        generated(both, key)


def test_an_explicit_public_key_needs_no_private_key(generated: Generate) -> None:
    """Feature F105."""
    text = public_text(generated(PublicKeySecret(name="pub", private_key="k"), PrivateKeySecret(name="k"))["pub"])
    assert public_text(generated(PublicKeySecret(name="pub", value=text))["pub"]) == text


def test_a_fragment_is_what_the_text_says_also_null(generated: Generate) -> None:
    """Feature F124."""
    secrets = (ConfigFragmentSecret(name="f", value={"a": [1]}), ConfigFragmentSecret(name="n", value=None))
    values = generated(*secrets)
    assert values == {"f": FragmentValue(value={"a": [1]}), "n": FragmentValue(value=None)}
    changed = (ConfigFragmentSecret(name="f", value="x"), ConfigFragmentSecret(name="n", value=None))
    assert generated(*changed, old=secrets, previous=values)["f"] == FragmentValue(value="x")


def test_a_p521_key_given_in_the_text_signs_certificates(generated: Generate, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    values = generated(
        PrivateKeySecret(name="k", value=text),
        X509CaSecret(name="ca", private_key="k"),
        X509Secret(name="c", private_key="k", issuer="ca"),
    )
    for name in ("ca", "c"):
        (tmp_path / name).write_text(public_text(values[name]))
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(NOW.timestamp())), "-CAfile", "ca", "c"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "c: OK\n"


DAYS = timedelta(days=1)
RENEWED: tuple[Secret, ...] = (
    X509Secret(name="leaf", private_key="leaf_key", issuer="ca", valid_for=30 * DAYS),
    X509CaSecret(name="ca", private_key="ca_key", valid_for=90 * DAYS),
    X509CaSecret(name="lasting", private_key="ca_key"),
    PrivateKeySecret(name="leaf_key"),
    PrivateKeySecret(name="ca_key"),
    AsciiSecret(name="word"),
)


def renew_at(secrets: tuple[Secret, ...], values: Mapping[str, Value], now: datetime) -> dict[str, Value]:
    session = Session(version="0.3", name="s", secrets=secrets)
    return renew(session, values, random=random.Random(3).randbytes, now=now)


@pytest.mark.parametrize(("days", "changed"), [(0, set()), (19, set()), (20, {"leaf"}), (60, {"leaf", "ca"})])
def test_what_is_due_is_made_anew_and_nothing_else(generated: Generate, days: int, changed: set[str]) -> None:
    """Feature F115: renewal before expiry."""
    values = generated(*RENEWED)
    renewed = renew_at(RENEWED, values, NOW + days * DAYS)
    assert list(renewed) == list(values)
    assert {name for name in values if renewed[name] != values[name]} == changed


def test_a_renewed_certificate_keeps_its_key_and_chains_to_the_renewed_issuer(generated: Generate) -> None:
    values = generated(*RENEWED)
    renewed = renew_at(RENEWED, values, NOW + 60 * DAYS)
    old, new, issuer = values["leaf"], renewed["leaf"], renewed["ca"]
    assert isinstance(old, CertificateValue)
    assert isinstance(new, CertificateValue)
    assert isinstance(issuer, CertificateValue)
    assert new.private_key == old.private_key
    assert new.not_after == NOW + 90 * DAYS
    assert new.chain_der == (issuer.certificate_der,)
    # Who still holds an old certificate verifies with the new issuer, and the other way round.
    certificate(old).verify_directly_issued_by(certificate(issuer))
    certificate(new).verify_directly_issued_by(certificate(values["ca"]))


def test_what_an_issuer_signed_is_made_anew_with_it_even_if_not_due(generated: Generate) -> None:
    values = renew_at(RENEWED, generated(*RENEWED), NOW + 50 * DAYS)
    assert renew_at(RENEWED, values, NOW + 59 * DAYS) == values
    renewed = renew_at(RENEWED, values, NOW + 60 * DAYS)
    assert {name for name in values if renewed[name] != values[name]} == {"leaf", "ca"}


def test_a_certificate_cut_short_by_its_issuer_is_due_before_the_issuer_ends(generated: Generate) -> None:
    secrets = (X509Secret(name="leaf", private_key="leaf_key", issuer="ca"), *RENEWED[1:])
    renewed = renew_at(secrets, generated(*secrets), NOW + 61 * DAYS)
    assert isinstance(renewed["leaf"], CertificateValue)
    assert renewed["leaf"].not_after == NOW + 151 * DAYS


def test_an_explicit_certificate_is_never_made_anew(generated: Generate) -> None:
    """Feature F116: valid_for is not for explicit ones."""
    made = generated(*RENEWED)
    secrets = (X509CaSecret(name="given", value=public_text(made["ca"])),)
    values = generated(*secrets)
    assert renew_at(secrets, values, NOW + 1000 * DAYS) == values


def test_an_explicit_issuer_near_its_end_does_not_make_every_release_issue_again(generated: Generate) -> None:
    made = generated(*RENEWED)
    secrets = (
        PrivateKeySecret(name="key", value=public_text(made["ca_key"])),
        X509CaSecret(name="given", private_key="key", value=public_text(made["ca"])),
        X509Secret(name="tls", private_key="key", issuer="given"),
    )
    values = renew_at(secrets, generated(*secrets), NOW + 70 * DAYS)
    assert renew_at(secrets, values, NOW + 71 * DAYS) == values


def test_a_certificate_whose_explicit_issuer_expired_is_refused(generated: Generate) -> None:
    made = generated(*RENEWED)
    secrets = (
        PrivateKeySecret(name="key", value=public_text(made["ca_key"])),
        X509CaSecret(name="given", private_key="key", value=public_text(made["ca"])),
        X509Secret(name="tls", private_key="key", issuer="given"),
    )
    with pytest.raises(ReleaseRefusedError) as caught:
        renew_at(secrets, generated(*secrets), NOW + 90 * DAYS)
    assert str(caught.value) == (
        "a secret that is due cannot be made anew; update the session: "
        "secret 'tls': the issuer expired at 2030-04-01T12:00:00Z; give a newer one"
    )


def test_renewing_without_a_stored_value_is_refused() -> None:
    with pytest.raises(StoreError, match=r"^stored values lack secret 'word' of the session; restore the record$"):
        renew_at((AsciiSecret(name="word"),), {}, NOW)


def test_a_stored_value_of_another_kind_is_refused(generated: Generate) -> None:
    stored: dict[str, Value] = {"word": BinaryValue(data=b"hunter2")}
    with pytest.raises(StoreError, match=r"^the stored value of secret 'word' is of another kind; restore the record$"):
        renew_at((AsciiSecret(name="word"),), stored, NOW)
    with pytest.raises(StoreError, match=r"^the stored value of secret 'word' is of another kind"):
        generated(AsciiSecret(name="word"), old=(AsciiSecret(name="word"),), previous=stored)


def test_a_generated_key_is_a_private_key_value(keys: Mapping[str, Value]) -> None:
    assert {type(value) for value in keys.values()} == {PrivateKeyValue}
