"""The session parser knows kinds, formats and encodings by name, and here is what carries them out: both agree."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.secret.format import FORMS
from ostiary.secret.fragment import fragment
from ostiary.secret.generate import generate, renew
from ostiary.secret.kind import KINDS
from ostiary.secret.outside import Sources, fetch_outside
from ostiary.secret.release import ReleaseContext, release_values
from ostiary.secret.render import ENCODINGS, render
from ostiary.secret.value import (
    AadTokenValue,
    AsciiValue,
    BinaryValue,
    JwtValue,
    Released,
    Value,
    decode_values,
    encode_values,
)
from ostiary.secret.vault import VaultEntry
from ostiary.session import language
from ostiary.session.parse import parse_session
from ostiary.session.placeholder import Placeholder, parse_template

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)

FORMS_BY_KIND = {
    **{kind.name: FORMS[kind.value_type] for kind in KINDS.values()},
    "aad-token": FORMS[AadTokenValue],
    "jwt": FORMS[JwtValue],
}


def test_kinds_agree() -> None:
    assert set(FORMS_BY_KIND) == set(language.KINDS)


def test_formats_agree() -> None:
    assert {kind: set(forms.formats) for kind, forms in FORMS_BY_KIND.items()} == {
        kind: set(formats) for kind, formats in language.FORMATS.items()
    }


def test_dot_forms_agree() -> None:
    assert {kind: set(forms.dot_forms) for kind, forms in FORMS_BY_KIND.items()} == {
        kind: set(forms) for kind, forms in language.DOT_FORMS.items()
    }


def test_raw_formats_agree() -> None:
    raw = {
        kind: {name for name, form in forms.formats.items() if not form.text} for kind, forms in FORMS_BY_KIND.items()
    }
    assert {kind: formats for kind, formats in raw.items() if formats} == {
        kind: set(formats) for kind, formats in language.RAW_FORMATS.items()
    }


def test_encodings_agree() -> None:
    assert set(ENCODINGS) == set(language.ENCODINGS)


def test_a_parsed_text_is_rendered_in_one_pass() -> None:
    """Feature F132, F133, F137: malformed text stays as it is."""
    values = {"a": AsciiValue(text="$$SCONE::b$$"), "b": AsciiValue(text="\t")}
    template = parse_template(r"$$SCONE::a$$$$SCONE::b|escape(json)$$ $$SCONE:a$$")
    assert render(template, values) == rb"$$SCONE::b$$\t $$SCONE:a$$"


EVERY_KIND = """
name: all
version: "0.3.12"
secrets:
  - {name: ascii, kind: ascii}
  - {name: binary, kind: binary, size: 32}
  - {name: private-key, kind: private-key, key_type: P-384}
  - {name: public-key, kind: public-key, private_key: private-key}
  - {name: x509-ca, kind: x509-ca, private_key: private-key}
  - {name: x509, kind: x509, private_key: private-key, issuer: x509-ca, san: ["dns:a.example", "ip:2001:db8::1"]}
  - {name: config-fragment, kind: config-fragment, value: {mrenclave: [a, 1, null]}}
  - {name: pgp-key, kind: pgp-key}
  - {name: aad-token, kind: aad-token, tenant_id: t, client_id: c, application_secret: s}
  - name: jwt
    kind: jwt
    signer: private-key
    alg: ES384
    validity: {for: 1h}
    payload: {id: $$SCONE::ascii$$, who: $$SCONE::self::software_identity$$, note: "id: $$SCONE::ascii$$"}
  - {name: imported, import: {session: other, secret: theirs}}
  - name: vaulted
    import_akv: {vault: v.vault.azure.net, token: $$SCONE::aad-token$$, decryption_key: $$SCONE::binary$$}
"""
EVERY_KIND_OF_02 = """
name: old
version: "0.2"
secrets:
  - {name: session-ca, kind: session-ca}
  - {name: x509, kind: x509}
"""


def all_released(text: str) -> dict[str, Released]:
    """Every secret of a session text, after one start of a program."""
    session = parse_session(text.encode()).session
    names = [secret.name for secret in session.secrets]
    values = generate(session, previous={}, previous_session=None, random=random.randbytes, now=NOW)
    held = decode_values(encode_values(values))
    assert held == values
    key = held.get("binary")
    sources = Sources(
        imports={"imported": AsciiValue(text="theirs")},
        fetch_token=lambda secret: f"token of {secret.client_id}",
        fetch_vault=lambda _, token: VaultEntry(text=seal_for_vault(token.encode(), key), type="binary"),
    )
    imports = fetch_outside(session, held, names, sources)
    renewed = renew(session, held, random=random.randbytes, now=NOW, imports=imports)
    assert renewed == held
    context = ReleaseContext(now=NOW, software_identity=bytes(32), imports=imports)
    return release_values(session, renewed, names, context)


def seal_for_vault(data: bytes, key: Value | None) -> str:
    assert isinstance(key, BinaryValue)
    header = bytes.fromhex("00a10002") + len(data).to_bytes(2, "big") + bytes(12)
    return base64.b64encode(header + AESGCM(key.data).encrypt(bytes(12), data, None)).decode()


def test_every_format_of_every_kind_is_rendered_from_a_session_text() -> None:
    values = all_released(EVERY_KIND)
    for kind, formats in language.FORMATS.items():
        forms = [f":{form}" if form else "" for form in formats] + [f".{form}" for form in language.DOT_FORMS[kind]]
        for form in forms if kind not in ("session-ca", "config-fragment") else ():
            rendered = render(parse_template(f"$$SCONE::{kind}{form}$$"), values)
            assert rendered or (kind, form) == ("x509-ca", ":chain")
    assert render(parse_template("$$SCONE::imported$$ $$SCONE::vaulted$$"), values) == b"theirs token of c"
    assert fragment(values, Placeholder(name="config-fragment")) == {"mrenclave": ["a", 1, None]}


def test_a_certificate_of_language_02_is_rendered_from_a_session_text() -> None:
    """Feature F122."""
    values = all_released(EVERY_KIND_OF_02)
    text = render(parse_template("$$SCONE::session-ca$$$$SCONE::x509$$$$SCONE::x509.key$$"), values)
    ca, certificate = x509.load_pem_x509_certificates(text)
    certificate.verify_directly_issued_by(ca)
    assert text.startswith(render(parse_template("$$SCONE::x509.chain$$"), values))
