"""Signed and encrypted uploads at the real endpoints, with published signatures and with those of openssl."""

from __future__ import annotations

import base64
import json
import subprocess
from itertools import count
from pathlib import Path

import pytest
from tests.simulators.service import Answer, Client, RunningService
from tests.simulators.signers import Person, ed25519_person, p384_person, signed

from ostiary.session import parse_session
from ostiary.session.encrypted import encrypt_session

VECTORS = Path(__file__).parents[1] / "vectors" / "session-hash"
NOBODY = Client()
ANN, BEN = ed25519_person(), p384_person()

_numbers = count()


@pytest.fixture
def name() -> str:
    """A session name that no other test uses."""
    return f"signed-{next(_numbers)}"


def put(service: RunningService, body: bytes, client: Client = NOBODY, what: str = "signed") -> Answer:
    return client.request(service.client_port, "PUT", f"/v1/{what}_sessions", body)


def owned(name: str, owner: Person, *, predecessor: str = "null", more: str = "") -> str:
    return (
        f'version: "0.3.12"\nname: {name}\npredecessor: {predecessor}\naccess_policy: {{read: ANY, update: CREATOR}}\n'
        f"creator: {{signer: {owner.quoted}}}\n{more}"
    )


def test_a_signed_session_needs_no_client_certificate(service: RunningService, name: str) -> None:
    told = put(service, signed(owned(name, ANN), ANN))
    assert told.status == 201, told.body
    assert list(told.body) == ["hash", "warnings"]
    assert told.body == {"hash": parse_session(owned(name, ANN)).hash.hex(), "warnings": []}
    read = NOBODY.request(service.client_port, "GET", f"/v1/sessions/{name}")
    assert read.body["hash"] == told.body["hash"]
    assert parse_session(read.body["session"]).hash.hex() == told.body["hash"]


def test_over_mutual_tls_the_signatures_alone_count(service: RunningService, alice: Client, name: str) -> None:
    """Neither does the certificate become the creator, nor does it admit what the signers may not."""
    told = alice.request(service.client_port, "POST", "/session", f"name: {name}\nversion: '0.3.10'\n".encode())
    following = owned(name, ANN, predecessor=told.body["hash"])
    refused = put(service, signed(following, ANN), alice)
    assert refused.status == 403
    assert refused.body["msg"][0] == f"You have insufficient rights to update session {name}"
    first = put(service, signed(owned(f"{name}-own", ANN), ANN), alice)
    assert first.status == 201
    taken = alice.request(
        service.client_port, "POST", "/session", f"name: {name}-own\npredecessor: {first.body['hash']}\n".encode()
    )
    assert taken.status == 403


@pytest.mark.parametrize(("vector", "session"), [
    ("osv-scan-0", "osv-scanner-sample2/scone-osv-scan"),
    ("osv-ca-challenge-0", "osv-scanner-sample2/scone-osv-scan-ca-challenge"),
])  # fmt: skip
def test_f208_the_published_signed_sessions_are_accepted(service: RunningService, vector: str, session: str) -> None:
    """F208: as somebody else's tools made and signed them."""
    folder = VECTORS / vector
    signer, text = (folder / "signer.pem").read_text(), (folder / "session.yml").read_text()
    namespace = (
        "name: osv-scanner-sample2\nversion: '0.3.10'\naccess_policy: {read: ANY, update: NONE, create_sessions: "
    )
    namespace += f"{{signer: {json.dumps(signer)}}}}}\n"
    made = NOBODY.request(service.client_port, "POST", "/v1/sessions", namespace.encode())
    assert made.status in (201, 409), made.body
    signature = {"signer": signer, "signature": (folder / "signature.txt").read_text().strip()}
    flipped = bytearray(base64.b64decode(signature["signature"]))
    flipped[20] ^= 1
    broken = {**signature, "signature": base64.b64encode(flipped).decode()}
    for signatures in ([broken], [signature, broken]):
        refused = put(service, json.dumps({"session": text, "signatures": signatures}).encode())
        assert refused.status == 400
        assert f"signatures[{len(signatures) - 1}] does not hold" in refused.body["msg"][0]
    told = put(service, json.dumps({"session": text, "signatures": [signature]}).encode())
    assert told.status == 201, told.body
    assert told.body["hash"] == (folder / "hash.txt").read_text().strip()
    assert NOBODY.request(service.client_port, "GET", f"/v1/sessions/{session}").body["hash"] == told.body["hash"]


@pytest.mark.parametrize(("algorithm", "sign"), [
    (("-algorithm", "ed25519"), ("pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "message")),
    (("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"), ("dgst", "-sha384", "-sign", "key.pem", "message")),
], ids=["ed25519", "p-384"])  # fmt: skip
def test_openssl_makes_signatures_that_hold(
    service: RunningService, name: str, tmp_path: Path, algorithm: tuple[str, ...], sign: tuple[str, ...]
) -> None:
    def openssl(*words: str) -> bytes:
        return subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True, timeout=60).stdout

    openssl("genpkey", *algorithm, "-out", "key.pem")
    signer = openssl("pkey", "-in", "key.pem", "-pubout").decode()
    text = (
        f"version: '0.3.10'\nname: {name}\naccess_policy: {{read: NONE}}\ncreator: {{signer: {json.dumps(signer)}}}\n"
    )
    (tmp_path / "message").write_bytes(b"\x00\x01" + parse_session(text).hash)
    signature = base64.b64encode(openssl(*sign)).decode()
    body = json.dumps({"session": text, "signatures": [{"signer": signer, "signature": signature}]}).encode()
    told = put(service, body)
    assert told.status == 201, told.body


def test_each_refusal_has_its_status(service: RunningService, name: str) -> None:
    """400 invalid, 403 the signers may not, 404 no such session or namespace, 409 predecessor, 413 too large."""
    assert put(service, b"name: s").status == 400
    assert put(service, signed(owned(name, ANN), BEN)).status == 400
    assert put(service, signed(owned(f"{name}/below", ANN), ANN)).status == 404
    assert put(service, signed(owned(name, ANN, predecessor="ab" * 32), ANN)).status == 404
    first = put(service, signed(owned(name, ANN), ANN))
    assert first.status == 201
    existing = put(service, signed(owned(name, ANN), ANN))
    assert existing.status == 409
    assert "Session already exists, please specify predecessor hash" in existing.body["msg"]
    assert put(service, signed(owned(name, BEN, predecessor=first.body["hash"]), BEN)).status == 403
    assert put(service, b"[" + b" " * 3 * 1024 * 1024).status == 413


def test_a_signed_session_may_be_as_large_as_any(service: RunningService, name: str) -> None:
    """A text of a MiB takes more than that in JSON."""
    content = ("ä" * 60 + "\n      ") * 6000
    images = f"images:\n- name: i\n  injection_files:\n  - path: /f\n    content: |\n      {content}end\n"
    body = signed(owned(name, ANN, more=images), ANN)
    assert 1024 * 1024 < len(body) < 3 * 1024 * 1024
    told = put(service, body)
    assert told.status == 201, told.body
    sealed = encrypt_session(signed(owned(f"{name}-e", ANN, more=images), ANN).decode(), key_of(service))
    told = put(service, sealed.to_json().encode(), what="encrypted")
    assert told.status == 201, told.body


def key_of(service: RunningService) -> bytes:
    told = NOBODY.request(service.client_port, "GET", "/v1/session_encryption_key")
    assert (told.status, list(told.body)) == (200, ["session_encryption_key"])
    return bytes.fromhex(told.body["session_encryption_key"])


def test_f210_an_encrypted_session_is_uploaded(service: RunningService, name: str) -> None:
    """F210: round trip, and a foreign container is refused with help."""
    sealed = encrypt_session(signed(owned(name, BEN), BEN).decode(), key_of(service))
    told = put(service, sealed.to_json().encode(), what="encrypted")
    assert told.status == 201, told.body
    assert told.body["hash"] == parse_session(owned(name, BEN)).hash.hex()
    foreign = {"encrypted_session": base64.b64encode(bytes(1000)).decode(), "encryption_key": sealed.key.hex()}
    refused = put(service, json.dumps(foreign).encode(), what="encrypted")
    assert refused.status == 400
    assert "PUT /v1/signed_sessions" in refused.body["msg"][-1]


def test_f036_the_hash_is_asked_for_by_name(service: RunningService, alice: Client, eve: Client, name: str) -> None:
    """F036: with a salt by anyone, without by those who may read."""

    def ask(client: Client, session: str) -> Answer:
        return client.request(service.client_port, "GET", f"/v1/session_hashes/{session}")

    plain = alice.request(service.client_port, "POST", "/session", f"name: {name}\nversion: '0.3.12'\n".encode())
    assert ask(alice, name).body == {"hash": plain.body["hash"]}
    assert (ask(eve, f"/{name}").status, ask(NOBODY, name).status) == (403, 401)
    assert ask(NOBODY, "there-is-none").status == 404
    assert "Session not found" in ask(NOBODY, "there-is-none").body["msg"][0]
    salted = f"name: {name}\nversion: '0.3.12'\npredecessor: {plain.body['hash']}\nsalt: {'ab' * 16}\n"
    told = alice.request(service.client_port, "POST", "/session", salted.encode())
    assert ask(NOBODY, name).body == ask(eve, name).body == {"hash": told.body["hash"]}
    assert alice.request(service.client_port, "GET", f"/session/{name}").status == 200
    assert eve.request(service.client_port, "GET", f"/session/{name}").status == 403
