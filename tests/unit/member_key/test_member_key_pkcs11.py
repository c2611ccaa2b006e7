"""Keys in PKCS#11 tokens, of SoftHSM: which key a URI names, what signs, and what a PIN is."""

from __future__ import annotations

import sys
from pathlib import Path

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.keys import MODULE, PIN, Tokens, ed25519_key, p256_key, spki, tokens
from tests.unit.session import pki

from ostiary.errors import ConfigurationError, OutsideError
from ostiary.member_key import KeyPlace, choose_key
from ostiary.member_key.pkcs11 import _spki_of_certificate, _spki_of_point, _told
from ostiary.member_key.pkcs11_uri import KeyUri, parse_key_uri

MESSAGE = b"ostiary-board-decision-v1\n"


def nobody(what: str) -> str:
    raise AssertionError(f"nobody should be asked: {what}")


@pytest.fixture(name="tokens")
def _tokens() -> Tokens:
    return tokens()


def unlock(place: KeyPlace, pin: str = PIN) -> bytes:
    with place.unlocked(lambda _: pin) as usable:
        return usable.sign(MESSAGE)


@pytest.mark.parametrize("label", ["alice", "bob", "carol"])
def test_the_token_signs_with_the_key_that_is_named(tokens: Tokens, label: str) -> None:
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return PIN

    place, key = choose_key(tokens.uri(label)), tokens.keys[label]
    assert place.public() == spki(key)
    with place.unlocked(ask) as usable:
        assert usable.spki == spki(key)
        signatures = {usable.sign(MESSAGE), usable.sign(MESSAGE)}
        assert PIN not in repr(usable)
    for signature in signatures:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            key.public_key().verify(signature, MESSAGE)
        else:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            key.public_key().verify(signature, MESSAGE, ec.ECDSA(SHA384() if label == "bob" else SHA256()))
    assert asked == [f"PIN of PKCS#11 key '{label}' on token 'board'"]


def test_a_key_is_named_by_its_id_too_and_every_other_attribute_must_fit(tokens: Tokens) -> None:
    listed = "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;token=board;id=%02;type=private"
    query = f"?module-path={MODULE}"
    assert choose_key(f"{listed}{query}").public() == spki(tokens.keys["bob"])
    for other in (
        listed.replace("v2", "v3"),
        listed.replace("project", "x"),
        f"{listed};serial=00",
        f"{listed};slot-id=7",
    ):
        with pytest.raises(ConfigurationError, match="no such token is there"):
            choose_key(f"{other}{query}").public()


@pytest.mark.parametrize(("uri", "says"), [
    ("pkcs11:token=board;object=nobody", "the token does not have it"),
    ("pkcs11:token=board;object=twin", "has 2 such keys; add id="),
    ("pkcs11:object=alice", r"2 tokens fit: add token= or serial=: '(board|spare)' \(serial "),
    ("pkcs11:token=board;object=old", "the key is of another type, expected Ed25519, P-384 or P-256"),
    ("pkcs11:token=board;object=odd", "the key is on another curve, expected Ed25519, P-384 or P-256"),
])  # fmt: skip
def test_a_uri_that_does_not_name_one_key_of_a_member_is_refused(tokens: Tokens, uri: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        unlock(choose_key(f"{uri}?module-path={MODULE}"))


def test_public_keys_are_told_apart_before_any_pin_is_asked(tokens: Tokens) -> None:
    with pytest.raises(ConfigurationError, match="has 2 such keys"):
        choose_key(tokens.uri("twin")).public()
    assert choose_key(tokens.uri("nobody")).public() is None


def test_a_wrong_pin_is_told_and_never_repeated(tokens: Tokens) -> None:
    with pytest.raises(ConfigurationError, match="the PIN is wrong: a token locks itself") as caught:
        unlock(choose_key(tokens.uri("alice")), "13370")
    assert "13370" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="no PIN was given"):
        unlock(choose_key(tokens.uri("alice")), "")


def test_a_private_key_without_its_public_half_does_not_sign(tokens: Tokens) -> None:
    with _token().open(user_pin=PIN, rw=True) as session:
        for key in list(session.get_objects({CLASS: pkcs11.ObjectClass.PUBLIC_KEY, LABEL: "bare"})):
            key.destroy()
    with pytest.raises(ConfigurationError, match="neither a public key nor a certificate beside the private key"):
        unlock(choose_key(tokens.uri("bare")))


CLASS, LABEL = pkcs11.Attribute.CLASS, pkcs11.Attribute.LABEL


def _token() -> pkcs11.Token:
    return next(iter(pkcs11.lib(MODULE).get_tokens(token_label="board")))


def make_key(label: str, *, may: pkcs11.MechanismFlag, **private: bool) -> None:
    """A P-256 key pair that the token makes itself."""
    curve = {pkcs11.Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
    template = {pkcs11.Attribute[name.upper()]: value for name, value in private.items()}
    with _token().open(user_pin=PIN, rw=True) as session:
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, label=label, capabilities=may, private_template=template)


def test_a_key_that_wants_the_pin_for_every_signature_gets_it(tokens: Tokens) -> None:
    """As the signing keys of identity cards."""
    make_key("strict", may=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY, always_authenticate=True)
    place = choose_key(tokens.uri("strict"))
    public = load_der_public_key(place.public() or b"")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    with place.unlocked(lambda _: PIN) as usable:
        for _ in range(2):
            public.verify(usable.sign(MESSAGE), MESSAGE, ec.ECDSA(SHA256()))


def test_a_key_that_may_not_sign_is_refused(tokens: Tokens) -> None:
    make_key("mute", may=pkcs11.MechanismFlag.DERIVE)
    with pytest.raises(ConfigurationError, match="the token does not let it sign"):
        unlock(choose_key(tokens.uri("mute")))


def test_what_a_token_says_is_told_in_our_words() -> None:
    with pytest.raises(ConfigurationError, match="k: the PIN is locked after too many wrong ones"), _told("k"):
        raise pkcs11.PinLocked
    with pytest.raises(OutsideError, match="k: the token failed: DeviceRemoved"), _told("k"):
        raise pkcs11.DeviceRemoved
    with pytest.raises(OutsideError, match="k: the token's certificate cannot be read"):
        _spki_of_certificate(b"0", "k")


def test_without_the_package_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ostiary.member_key.pkcs11", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'ostiary\[pkcs11\]'"):
        choose_key("pkcs11:object=a")


def test_a_pin_may_lie_in_a_file(tokens: Tokens, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(f"{PIN}\n")
    place = choose_key(tokens.uri("alice", query=f"&pin-source=file:{tmp_path}/pin"))
    with place.unlocked(nobody) as usable:
        assert len(usable.sign(MESSAGE)) == 64


def test_the_library_may_be_named_by_the_environment(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PKCS11_MODULE_PATH", raising=False)
    place = choose_key("pkcs11:token=board;object=alice")
    with pytest.raises(ConfigurationError, match=r"nothing names the token's library: add \?module-path="):
        place.public()
    monkeypatch.setenv("PKCS11_MODULE_PATH", MODULE)
    assert place.public() == spki(tokens.keys["alice"])
    monkeypatch.setenv("PKCS11_MODULE_PATH", "/nowhere.so")
    with pytest.raises(OutsideError, match=r"PKCS#11 library /nowhere.so: the token failed: .*cannot open"):
        place.public()


def test_a_certificate_stands_in_for_a_public_key(tokens: Tokens) -> None:
    """As on smart cards. The certificate is there for as long as the session that made it."""
    attribute, classes = pkcs11.Attribute, pkcs11.ObjectClass
    certificate = x509.load_pem_x509_certificate(pki.certificate_pem().encode())
    expected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with _token().open(user_pin=PIN) as session:
        values = {attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509, attribute.SUBJECT: b"0\x00"}
        session.create_object({
            attribute.CLASS: classes.CERTIFICATE, attribute.LABEL: "card",
            attribute.VALUE: certificate.public_bytes(Encoding.DER), **values,
        })  # fmt: skip
        assert choose_key(tokens.uri("card")).public() == expected


@pytest.mark.parametrize(("text", "says"), [
    ("pkcs11:", "it names no key"),
    ("pkcs11:token=board", "it names no key"),
    ("pkcs11:object=a;object=b", "object stands there twice"),
    ("pkcs11:object=a;colour=red", "'colour' is no attribute here"),
    ("pkcs11:object", "'object' is no attribute here"),
    ("pkcs11:object=a;;id=%01", "'' is no attribute here"),
    ("pkcs11:object=%ff", "object is not UTF-8"),
    ("pkcs11:object=a;type=cert", "type=cert is no key pair"),
    ("pkcs11:object=a;slot-id=one", "slot-id=one, expected a number"),
    ("pkcs11:object=a?pin-source=|cat", "expected file:/PATH"),
    ("pkcs11:object=a?pin-source=pin", "expected file:/PATH"),
    ("pkcs11:object=a?module-name=x", "'module-name' is no attribute here"),
])  # fmt: skip
def test_a_uri_with_anything_that_we_do_not_hear_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_key_uri(text)
    assert says in str(caught.value)


def test_a_pin_in_the_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="where everyone on this machine can read it") as caught:
        parse_key_uri("pkcs11:object=a?pin-value=94017")
    assert "94017" not in str(caught.value)


def test_a_uri_is_read_whole() -> None:
    uri = parse_key_uri(
        "pkcs11:token=My%20Card;manufacturer=M;serial=7;model=X;slot-id=3;object=k;id=%01%ff;type=public"
        "?module-path=/l.so&pin-source=file:///run/pin"
    )
    assert uri == KeyUri(
        token="My Card", manufacturer="M", serial="7", model="X", slot_id=3, object_label="k", object_id=b"\x01\xff",
        module_path="/l.so", pin_file="/run/pin",
    )  # fmt: skip
    assert (str(uri), str(parse_key_uri("pkcs11:id=%0a"))) == ("'k' on token 'My Card'", "'0a'")


@given(st.text(max_size=60))
def test_no_uri_raises_anything_but_our_error(text: str) -> None:
    try:
        parse_key_uri(f"pkcs11:{text}")
    except ConfigurationError:
        return


def test_a_point_is_read_bare_and_in_its_octet_string() -> None:
    """Tokens differ; both forms name the same key."""
    key, oid = p256_key(), bytes.fromhex("06082a8648ce3d030107")
    bare = spki(key)[-65:]
    for point in (bare, b"\x04\x41" + bare):
        assert _spki_of_point(oid, point, "k") == spki(key)
    edwards, name = ed25519_key(), b"\x13\x0cedwards25519"
    for point in (spki(edwards)[-32:], b"\x04\x20" + spki(edwards)[-32:]):
        assert _spki_of_point(name, point, "k") == spki(edwards)
    for point in (b"", bare[:-1], bytes(65)):
        with pytest.raises(OutsideError, match="the token's public key cannot be read"):
            _spki_of_point(oid, point, "k")
