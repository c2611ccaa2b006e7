"""Challenge, evidence, configuration: the enclave protocol from the program's side."""

from __future__ import annotations

import binascii
import json

from ostiary.attester.binding import CLIENT, NONCE_BYTES, report_data
from ostiary.errors import DeniedError, InputError, OutsideError
from ostiary.launcher.access_token import prove_token, require_token
from ostiary.launcher.configuration import Configuration, parse_configuration, parse_json_object
from ostiary.launcher.connection import Answer, Connection

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Callable

    from ostiary.attester import Evidence

MAX_REASONS = 32
MAX_REASON_CHARACTERS = 2000


def attest(
    connection: Connection,
    service: str,
    make_evidence: Callable[[bytes], Evidence] | None,
    *,
    one_time_password: str | None = None,
    access_token: bytes | None = None,
) -> Configuration:
    """Prove what this is over an open connection, and receive the configuration of `service` (SESSION/SERVICE).

    make_evidence: from 64 bytes of report data to evidence. None sends none, which the CAS accepts for sessions with
    `mode: none` only. one_time_password: six digits, sent as they are. access_token: the session's; it is not sent.
    Guarantees on return: the configuration came over the connection whose two keys the evidence is bound to. With an
    access token, the other end has it too; without, whether that is the CAS that was meant is for `connection.connect`
    to see.
    Raises DeniedError for a refusal, InputError for an answer that is not of the protocol, OutsideError for trouble of
    the CAS or the connection or a CAS without the access token, and what `make_evidence` raises.
    Source: docs/enclave-protocol.md.
    """
    nonce = _challenge(connection, service)
    named = service if one_time_password is None else f"{service}@{one_time_password}"
    request = {"service": named, "nonce": nonce.hex(), "tee": "none", "evidence": "", "endorsements": ""}
    if make_evidence is not None:
        data = report_data(nonce=nonce, client_spki=connection.client_spki, server_spki=connection.server_spki)
        evidence = make_evidence(data)
        request["tee"] = evidence.tee
        request["evidence"] = _base64(evidence.evidence)
        request["endorsements"] = _base64(evidence.endorsements)
    client, server = connection.client_spki, connection.server_spki
    if access_token is not None:
        proof = prove_token(access_token, CLIENT, nonce=nonce, client_spki=client, server_spki=server)
        request["access_token_proof"] = proof.hex()
    answer = connection.post("/v1/configure", json.dumps(request).encode())
    require_success(answer, service)
    configuration = parse_configuration(answer.body)
    proof_of_cas = configuration.access_token_proof
    require_token(access_token, proof_of_cas, nonce=nonce, client_spki=client, server_spki=server)
    return configuration


def _challenge(connection: Connection, service: str) -> bytes:
    answer = connection.post("/v1/challenge", b"")
    require_success(answer, service)
    nonce = parse_json_object(answer.body).get("nonce")
    if not isinstance(nonce, str) or len(nonce) != 2 * NONCE_BYTES:
        raise InputError(f"the CAS's challenge has no nonce of {2 * NONCE_BYTES} hex digits")
    try:
        return binascii.unhexlify(nonce)
    except ValueError:
        raise InputError(f"the CAS's challenge has no nonce of {2 * NONCE_BYTES} hex digits") from None


def require_success(answer: Answer, service: str) -> None:
    """Check the status of an answer about `service`. Raises DeniedError, OutsideError, InputError, as `attest`."""
    if answer.status == 200:
        return
    reasons, denial = _parse_refusal(answer)
    if 400 <= answer.status < 500:
        raise DeniedError(f"CAS refused to configure {service}", *reasons, status=answer.status, denial=denial)
    if answer.status >= 500:
        raise OutsideError(f"the CAS cannot configure {service} now (HTTP status {answer.status})", *reasons)
    raise InputError(f"the CAS answered with HTTP status {answer.status}, which its protocol does not have")


def _parse_refusal(answer: Answer) -> tuple[tuple[str, ...], str]:
    """The sentences and the denial id of an error answer, as far as it has any, safe to print."""
    try:
        members = parse_json_object(answer.body)
    except InputError:
        return (f"HTTP status {answer.status} without further words",), ""
    chain, denial = members.get("msg"), members.get("denial")
    reasons = tuple(_printable(reason) for reason in chain[:MAX_REASONS]) if isinstance(chain, list) else ()
    return reasons or (f"HTTP status {answer.status}",), _printable(denial) if isinstance(denial, str) else ""


def _printable(value: object) -> str:
    """Text from outside, for a terminal: bounded, and without characters that could steer one."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(c if c.isprintable() else " " for c in text[:MAX_REASON_CHARACTERS])


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")
