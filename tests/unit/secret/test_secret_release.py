"""One release: what is made, imported and fetched for it, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from ostiary.errors import InputError, OutsideError, ReleaseRefusedError, StoreError
from ostiary.secret.format import public_text
from ostiary.secret.generate import generate, renew
from ostiary.secret.import_value import import_value
from ostiary.secret.outside import Sources, fetch_outside
from ostiary.secret.public import public_values
from ostiary.secret.release import ReleaseContext, release_values, secrets_used
from ostiary.secret.render import render
from ostiary.secret.value import (
    AadTokenValue,
    AsciiValue,
    BinaryValue,
    CertificateValue,
    JwtValue,
    PublicKeyValue,
    Released,
    Value,
)
from ostiary.secret.vault import VaultEntry
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    AsciiSecret,
    BinarySecret,
    ImportedSecret,
    JwtSecret,
    PrivateKeySecret,
    PublicKeySecret,
    Secret,
    Session,
    SoftwareIdentity,
    Variable,
    X509CaSecret,
    X509Secret,
)
from ostiary.session.placeholder import Placeholder, parse_template

NOW = datetime(2030, 1, 1, 12, 0, 0, 250, tzinfo=UTC)
IDENTITY = bytes(range(32))
CONTEXT = ReleaseContext(now=NOW, software_identity=IDENTITY)
NOWHERE = Sources()
SIGNER = PrivateKeySecret(name="signer", key_type="P-384")
TOKEN = JwtSecret(name="token", signer="signer", alg="ES384", validity=timedelta(hours=24))
AAD = AadTokenSecret(name="aad", tenant_id="t", client_id="c", application_secret="hunter2")
VAULT = AkvSecret(name="vaulted", vault="v.vault.azure.net", secret_name="theirs", token="aad")

Generate = Callable[..., dict[str, Value]]


def session(*secrets: Secret) -> Session:
    return Session(version="0.3.12", name="s", secrets=secrets)


def variable(name: str, form: str = "") -> Variable:
    return Variable(placeholder=Placeholder(name=name, format=form))


def released(
    values: Mapping[str, Value],
    secrets: tuple[Secret, ...],
    *wanted: str,
    sources: Sources = NOWHERE,
    context: ReleaseContext = CONTEXT,
) -> dict[str, Released]:
    """As the broker does it: fetch, renew, release."""
    found = session(*secrets)
    outside = fetch_outside(found, values, wanted, sources)
    renewed = renew(found, values, random=random.Random(5).randbytes, now=context.now, imports=outside)
    return release_values(found, renewed, wanted, replace(context, imports=outside))


def refusal(
    values: Mapping[str, Value],
    secrets: tuple[Secret, ...],
    wanted: str,
    sources: Sources = NOWHERE,
    context: ReleaseContext = CONTEXT,
) -> str:
    with pytest.raises(ReleaseRefusedError) as caught:
        released(values, secrets, wanted, sources=sources, context=context)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def claims(value: Released, public_key: str) -> dict[str, Any]:
    assert isinstance(value, JwtValue)
    found = jwt.decode(
        value.text,
        public_key,
        algorithms=["ES384"],
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert isinstance(found, dict)
    return found


def test_the_secrets_of_templates_are_found_with_their_dot_forms() -> None:
    found = session(
        AsciiSecret(name="a"), BinarySecret(name="b"), AsciiSecret(name="b.hex"), AsciiSecret(name="unused")
    )
    templates = [parse_template("$$SCONE::a$$ $$SCONE::lost$$"), parse_template("$$SCONE::b.hex$$"), parse_template("")]
    assert secrets_used(found, templates) == {"a", "b.hex"}
    without = replace(found, secrets=found.secrets[:2])
    assert secrets_used(without, templates) == {"a", "b"}


def test_stored_values_are_released_as_they_are(generated: Generate) -> None:
    secrets = (AsciiSecret(name="a"), BinarySecret(name="b"))
    values = generated(*secrets)
    assert released(values, secrets, "b") == {"b": values["b"]}
    assert released(values, secrets) == {}


# --- jwt -------------------------------------------------------------------------------------------------------------


def test_a_token_verifies_with_the_public_key_of_its_signer(generated: Generate) -> None:
    """Feature F126: ES384; the public key reaches verifiers as a public-key secret that everyone may read."""
    secrets = (SIGNER, TOKEN, PublicKeySecret(name="pub", private_key="signer", export_public=True))
    values = generated(*secrets)
    shown = public_values(session(*secrets), values)
    assert list(shown) == ["pub"]
    token = released(values, secrets, "token")["token"]
    issued = int(NOW.timestamp())
    assert claims(token, str(shown["pub"]["value"])) == {"iat": issued, "nbf": issued, "exp": issued + 86400}
    with pytest.raises(jwt.InvalidSignatureError):
        claims(token, public_text(generated(SIGNER, secrets[2])["pub"]))


def test_the_header_says_algorithm_and_type_and_nothing_else(generated: Generate) -> None:
    """Feature F126."""
    secrets = (SIGNER, TOKEN)
    token = released(generated(*secrets), secrets, "token")["token"]
    assert isinstance(token, JwtValue)
    assert json.dumps(jwt.get_unverified_header(token.text)) == '{"alg": "ES384", "typ": "JWT"}'
    assert render(parse_template("Bearer $$SCONE::token$$"), {"token": token}).decode() == f"Bearer {token.text}"


def test_claims_are_texts_whole_variables_and_the_software_identity(generated: Generate) -> None:
    """Feature F128, F129: text around a placeholder stays; the identity is the measurement in lower-case hex."""
    payload = (
        ("role", "writer"),
        ("id", variable("tenant")),
        ("data", variable("data.hex")),
        ("note", "tenant: $$SCONE::tenant$$"),
        ("mrenclave", SoftwareIdentity()),
    )
    secrets = (
        SIGNER,
        replace(TOKEN, payload=payload),
        AsciiSecret(name="tenant", value="t-1"),
        BinarySecret(name="data", value=b"\xff"),
        PublicKeySecret(name="pub", private_key="signer"),
    )
    values = generated(*secrets)
    found = claims(released(values, secrets, "token")["token"], public_text(values["pub"]))
    assert {name: found[name] for name, _ in payload} == {
        "role": "writer",
        "id": "t-1",
        "data": "ff",
        "note": "tenant: $$SCONE::tenant$$",
        "mrenclave": IDENTITY.hex(),
    }


def test_each_release_makes_a_token_of_its_own_and_none_is_stored(generated: Generate) -> None:
    secrets = (SIGNER, TOKEN)
    values = generated(*secrets)
    assert list(values) == ["signer"]
    later = replace(CONTEXT, now=NOW + timedelta(seconds=1))
    first, second = (released(values, secrets, "token", context=context)["token"] for context in (CONTEXT, later))
    assert first != second


@pytest.mark.parametrize(
    ("token", "others", "message"),
    [
        (
            TOKEN,
            (PrivateKeySecret(name="signer"),),
            "secret 'token': signer is not a P-384 key, which alg ES384 needs;",
        ),
        (TOKEN, (PrivateKeySecret(name="signer", key_type="Ed25519"),), "secret 'token': signer is not a P-384 key"),
        (TOKEN, (AsciiSecret(name="signer"),), "secret 'token': signer names 'signer', which is not a private-key"),
        (replace(TOKEN, payload=(("exp", "1"),)), (SIGNER,), "secret 'token': payload names exp, which the service"),
        (
            replace(TOKEN, payload=(("iat", "1"), ("nbf", "1"))),
            (SIGNER,),
            "secret 'token': payload names iat, nbf, which the service sets; remove it",
        ),
        (
            replace(TOKEN, payload=(("a", variable("raw")),)),
            (SIGNER, BinarySecret(name="raw", value=b"hunter2")),
            "secret 'token': placeholder $$SCONE::raw$$: this place is for text, and this format is raw bytes; use",
        ),
    ],
)
def test_a_token_that_cannot_be_made_is_refused(
    generated: Generate, token: JwtSecret, others: tuple[Secret, ...], message: str
) -> None:
    """Feature F126, F127: the signer's type, and the times that the service sets."""
    secrets = (token, *others)
    assert refusal(generated(*secrets), secrets, "token").startswith(message)


def test_a_token_that_must_say_who_it_is_is_refused_to_the_unattested(generated: Generate) -> None:
    """Feature F129."""
    secrets = (SIGNER, replace(TOKEN, payload=(("who", SoftwareIdentity()),)))
    context = ReleaseContext(now=NOW)
    assert refusal(generated(*secrets), secrets, "token", context=context) == (
        "secret 'token': payload names self::software_identity, and the program proved none; attest it, or leave the "
        "claim out"
    )


def test_a_token_of_itself_is_refused_at_upload(generated: Generate) -> None:
    with pytest.raises(InputError, match=r"^secrets: each of these is made of the next, 'token' -> 'token'; break the"):
        generated(SIGNER, replace(TOKEN, payload=(("a", variable("token")),)))
    with pytest.raises(InputError, match=r"^secret 'token': names 'lost', which is no secret of this session"):
        generated(SIGNER, replace(TOKEN, payload=(("a", variable("lost")),)))


# --- Azure -----------------------------------------------------------------------------------------------------------


def test_an_aad_token_is_fetched_when_it_is_wanted_and_only_then(generated: Generate) -> None:
    asked: list[AadTokenSecret] = []

    def fetch(secret: AadTokenSecret) -> str:
        asked.append(secret)
        return "ey.token"

    secrets = (AAD, AsciiSecret(name="a"))
    sources = Sources(fetch_token=fetch)
    values = generated(*secrets)
    assert released(values, secrets, "a", sources=sources) == {"a": values["a"]}
    assert asked == []
    assert released(values, secrets, "aad", sources=sources) == {"aad": AadTokenValue(text="ey.token")}
    assert asked == [AAD]


def fetching(entry: VaultEntry) -> Sources:
    def fetch(secret: AkvSecret, token: str) -> VaultEntry:
        assert (secret.vault, token) == ("v.vault.azure.net", "ey.token")
        return entry

    return Sources(fetch_token=lambda _: "ey.token", fetch_vault=fetch)


def test_a_secret_of_a_key_vault_is_fetched_with_its_token(generated: Generate) -> None:
    secrets = (VAULT, AAD)
    sources = fetching(VaultEntry(text="from there"))
    assert released(generated(*secrets), secrets, "vaulted", sources=sources) == {
        "vaulted": AsciiValue(text="from there")
    }


def test_a_secret_of_a_key_vault_is_decrypted_with_a_secret_of_the_session(generated: Generate) -> None:
    """Feature F157: `decryption_key`."""
    text = "AKEAAgAOAAECAwQFBgcICQoLL2e6d6rFpGniLLfI8LrjcabBR99Ezvks2vrXL0im"
    key = BinarySecret(name="key", value=bytes(range(32)))
    secrets = (replace(VAULT, decryption_key="key"), AAD, key)
    sources = fetching(VaultEntry(text=text))
    assert released(generated(*secrets), secrets, "vaulted", sources=sources) == {
        "vaulted": AsciiValue(text="hello from CAS")
    }
    wrong = (secrets[0], AAD, AsciiSecret(name="key", value="hunter2"))
    message = "secret 'vaulted': decryption_key names 'key', which is not a binary secret"
    assert refusal(generated(*wrong), wrong, "vaulted", sources) == message


@pytest.mark.parametrize(
    ("secrets", "wanted", "message"),
    [
        ((AAD,), "aad", "secret 'aad': this service does not fetch tokens of Azure's directory; ask its operator, or"),
        ((AAD, VAULT), "vaulted", "secret 'aad': this service does not fetch tokens of Azure's directory"),
    ],
)
def test_without_a_way_to_azure_its_secrets_are_refused(
    generated: Generate, secrets: tuple[Secret, ...], wanted: str, message: str
) -> None:
    assert refusal(generated(*secrets), secrets, wanted).startswith(message)


def test_a_token_alone_does_not_open_the_key_vault(generated: Generate) -> None:
    secrets = (AAD, VAULT)
    sources = Sources(fetch_token=lambda _: "hunter2")
    assert refusal(generated(*secrets), secrets, "vaulted", sources).startswith(
        "secret 'vaulted': this service does not read Azure's key vault; ask its operator"
    )
    other = (AsciiSecret(name="aad"), VAULT)
    assert refusal(generated(*other), other, "vaulted", fetching(VaultEntry(text="x"))) == (
        "secret 'vaulted': token names 'aad', which is not an aad-token secret"
    )


def test_trouble_on_the_way_refuses_the_release(generated: Generate) -> None:
    def fail(_: AadTokenSecret) -> str:
        raise OutsideError("login.example does not answer", "timed out")

    sources = Sources(fetch_token=fail)
    assert refusal(generated(AAD), (AAD,), "aad", sources) == "secret 'aad': login.example does not answer: timed out"


# --- imports ---------------------------------------------------------------------------------------------------------

IMPORTED = ImportedSecret(name="mine", session="other", secret="theirs")


def test_an_import_is_released_as_it_was_admitted() -> None:
    sources = Sources(imports={"mine": AsciiValue(text="from there")})
    assert released({}, (IMPORTED,), "mine", sources=sources) == {"mine": AsciiValue(text="from there")}


def test_an_import_that_is_not_there_is_refused_by_its_source() -> None:
    assert refusal({}, (IMPORTED,), "mine") == (
        "secret 'mine': '/session=other,secret=theirs' cannot be imported; create that session, and export the "
        "secret to this one"
    )


CA_IMPORT = ImportedSecret(name="ca", kind="x509-ca", session="other", secret="ca")
KEY_IMPORT = ImportedSecret(name="their_key", session="other", secret="key")
DEPENDENT: tuple[Secret, ...] = (
    CA_IMPORT,
    KEY_IMPORT,
    PrivateKeySecret(name="key"),
    X509Secret(name="tls", private_key="key", issuer="ca", endpoint="server", dns=("a.example",)),
    PublicKeySecret(name="pub", private_key="their_key"),
    AsciiSecret(name="word"),
)


@pytest.fixture(scope="module")
def exporter(generated: Generate) -> dict[str, Value]:
    return generated(PrivateKeySecret(name="key"), X509CaSecret(name="ca", private_key="key"))


def imports(values: Mapping[str, Value], *, with_key: bool = True) -> dict[str, Released]:
    source = X509CaSecret(name="ca", private_key="key")
    return {
        "ca": import_value(CA_IMPORT, source=source, value=values["ca"], with_key=with_key),
        "their_key": values["key"],
    }


def renewed(values: Mapping[str, Value], found: Mapping[str, Released], now: datetime = NOW) -> dict[str, Value]:
    return renew(session(*DEPENDENT), values, random=random.Random(5).randbytes, now=now, imports=found)


def certificate(value: Released) -> x509.Certificate:
    assert isinstance(value, CertificateValue)
    return x509.load_der_x509_certificate(value.certificate_der)


def test_what_is_made_of_imports_waits_for_them(generated: Generate, exporter: dict[str, Value]) -> None:
    """Sessions may be uploaded in any order; F109 across sessions."""
    values = generated(*DEPENDENT)
    assert list(values) == ["key", "word"]
    assert renewed(values, {}) == values
    made = renewed(values, imports(exporter))
    assert list(made) == ["key", "tls", "pub", "word"]
    certificate(made["tls"]).verify_directly_issued_by(certificate(exporter["ca"]))
    pub = made["pub"]
    assert isinstance(pub, PublicKeyValue)
    assert load_pem_public_key(public_text(pub).encode()) == certificate(exporter["ca"]).public_key()
    assert renewed(made, imports(exporter)) == made


def test_what_is_made_of_an_import_follows_it(generated: Generate, exporter: dict[str, Value]) -> None:
    made = renewed(generated(*DEPENDENT), imports(exporter))
    other = generated(PrivateKeySecret(name="key"), X509CaSecret(name="ca", private_key="key"))
    followed = renewed(made, imports(other))
    assert {name for name in made if made[name] != followed[name]} == {"tls", "pub"}
    certificate(followed["tls"]).verify_directly_issued_by(certificate(other["ca"]))


def test_a_certificate_follows_an_imported_key(generated: Generate) -> None:
    secrets = (KEY_IMPORT, X509Secret(name="tls", private_key="their_key"))
    keys = [generated(PrivateKeySecret(name="key"))["key"] for _ in range(2)]
    values: dict[str, Value] = {}
    for key in keys:
        values = renew(
            session(*secrets), values, random=random.Random(5).randbytes, now=NOW, imports={"their_key": key}
        )
        public = load_pem_private_key(public_text(key).encode(), None).public_key()
        assert certificate(values["tls"]).public_key() == public


def test_an_explicit_certificate_of_another_imported_key_is_refused(
    generated: Generate, exporter: dict[str, Value]
) -> None:
    secrets = (KEY_IMPORT, X509Secret(name="tls", private_key="their_key", value=public_text(exporter["ca"])))
    found = session(*secrets)
    source = random.Random(5).randbytes
    values = renew(found, {}, random=source, now=NOW, imports={"their_key": exporter["key"]})
    other = generated(PrivateKeySecret(name="key"))["key"]
    with pytest.raises(
        ReleaseRefusedError, match="secret 'tls': private_key is not the key of the certificate in value"
    ):
        renew(found, values, random=source, now=NOW, imports={"their_key": other})


def test_what_is_made_of_a_withdrawn_import_is_kept_and_not_released(
    generated: Generate, exporter: dict[str, Value]
) -> None:
    """The exporter's rule counts at each release, also for what was made of the import before."""
    made = renewed(generated(*DEPENDENT), imports(exporter))
    assert renewed(made, {}) == made
    assert released(made, DEPENDENT, "word") == {"word": made["word"]}
    assert refusal(made, DEPENDENT, "tls").startswith("secret 'ca': '/session=other,secret=ca' cannot be imported")
    sources = Sources(imports=imports(exporter))
    assert released(made, DEPENDENT, "tls", sources=sources) == {"tls": made["tls"]}


def test_without_renewal_what_was_never_made_is_refused(generated: Generate, exporter: dict[str, Value]) -> None:
    context = replace(CONTEXT, imports=imports(exporter))
    with pytest.raises(ReleaseRefusedError) as caught:
        release_values(session(*DEPENDENT), generated(*DEPENDENT), ["tls"], context)
    assert str(caught.value) == (
        "secret 'tls': it has not been made yet, because it is made of a secret from outside that is missing"
    )


def test_a_key_and_an_issuer_from_a_key_vault_sign(generated: Generate, exporter: dict[str, Value]) -> None:
    """A certificate that stands in the vault beside its key."""
    secrets = (
        AAD,
        replace(VAULT, name="ca"),
        PrivateKeySecret(name="key"),
        X509Secret(name="tls", private_key="key", issuer="ca"),
    )
    sources = fetching(VaultEntry(text=public_text(exporter["key"]) + public_text(exporter["ca"])))
    values = generated(*secrets)
    tls = released(values, secrets, "tls", sources=sources)["tls"]
    certificate(tls).verify_directly_issued_by(certificate(exporter["ca"]))


def test_an_imported_issuer_without_its_key_does_not_sign(generated: Generate, exporter: dict[str, Value]) -> None:
    with pytest.raises(ReleaseRefusedError) as caught:
        renewed(generated(*DEPENDENT), imports(exporter, with_key=False))
    assert str(caught.value) == (
        "a secret that is due cannot be made anew; update the session: secret 'tls': the issuer's private key is not "
        "known here; give the issuer its private_key"
    )


def test_an_imported_issuer_of_another_kind_does_not_sign(generated: Generate, exporter: dict[str, Value]) -> None:
    found = imports(exporter) | {"ca": AsciiValue(text="hunter2")}
    with pytest.raises(ReleaseRefusedError, match="secret 'tls': issuer names 'ca', which is not an x509-ca secret"):
        renewed(generated(*DEPENDENT), found)
    made = renewed(generated(*DEPENDENT), imports(exporter))
    with pytest.raises(
        ReleaseRefusedError, match="secret 'pub': private_key names 'their_key', which is not a private"
    ):
        renewed(made, imports(exporter) | {"their_key": BinaryValue(data=b"hunter2")})


def test_thousands_of_certificates_that_wait_are_looked_through_in_one_pass(generated: Generate) -> None:
    """A search for each of them would take minutes."""
    waiting = tuple(X509Secret(name=f"c{number}", private_key="key", issuer="ca") for number in range(3000))
    secrets: tuple[Secret, ...] = (CA_IMPORT, PrivateKeySecret(name="key"), *waiting)
    values = generated(*secrets)
    assert list(renew(session(*secrets), values, random=random.randbytes, now=NOW)) == ["key"]


def test_a_missing_value_that_waits_for_nothing_is_damage(generated: Generate) -> None:
    values = generated(*DEPENDENT)
    del values["word"]
    with pytest.raises(StoreError, match=r"^stored values lack secret 'word' of the session; restore the record$"):
        renewed(values, {})


def test_an_update_forgets_what_was_made_of_imports(generated: Generate, exporter: dict[str, Value]) -> None:
    made = renewed(generated(*DEPENDENT), imports(exporter))
    after = generate(
        session(*DEPENDENT), previous=made, previous_session=session(*DEPENDENT), random=random.randbytes, now=NOW
    )
    assert list(after) == ["key", "word"]
    assert after["word"] == made["word"]
