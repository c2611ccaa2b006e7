"""The enclave protocol against a simulated CAS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.simulators.cas import CasSimulator, configuration, http

from ostiary.attester import Evidence
from ostiary.errors import DeniedError, InputError, OstiaryError, OutsideError
from ostiary.launcher.attest import attest
from ostiary.launcher.configuration import Configuration
from ostiary.launcher.connection import connect


def honest(report_data: bytes) -> Evidence:
    """What the simulated CAS takes for evidence."""
    return Evidence(tee="sgx", evidence=report_data, endorsements=b'{"a":1}')


@contextmanager
def simulated(**script: bytes) -> Iterator[CasSimulator]:
    answers: dict[str, Callable[[], bytes | None]] = {
        f"/v1/{name}": lambda answer=answer: answer  # type: ignore[misc]
        for name, answer in script.items()
    }
    with CasSimulator(configuration(argv=("prog", 1)), script=answers) as cas:
        yield cas


def ask(
    cas: CasSimulator,
    make_evidence: Callable[[bytes], Evidence] | None = honest,
    *,
    one_time_password: str | None = None,
    access_token: bytes | None = None,
) -> Configuration:
    connection = connect("127.0.0.1", cas.port, cas_ca=None, retries=0)
    try:
        return attest(
            connection, "shop/web", make_evidence, one_time_password=one_time_password, access_token=access_token
        )
    finally:
        connection.close()


def test_evidence_over_this_connection_and_nonce_brings_the_configuration() -> None:
    with simulated() as cas:
        assert ask(cas).argv[0] == b"prog"
    (request,) = cas.seen.configure
    assert sorted(request) == ["endorsements", "evidence", "nonce", "service", "tee"]
    assert (request["service"], request["tee"], request["endorsements"]) == ("shop/web", "sgx", "eyJhIjoxfQ==")


def test_without_attestation_evidence_is_empty() -> None:
    with simulated() as cas:
        ask(cas, None)
    (request,) = cas.seen.configure
    assert (request["tee"], request["evidence"], request["endorsements"]) == ("none", "", "")


def test_a_one_time_password_stands_behind_the_service() -> None:
    with simulated() as cas:
        ask(cas, one_time_password="287082")
    assert [request["service"] for request in cas.seen.configure] == ["shop/web@287082"]


def test_f199_the_token_is_proved_over_this_connection_and_never_sent() -> None:
    """F199: the simulator checks the proof, and the configuration comes with its own."""
    with CasSimulator(configuration(argv=("prog",)), token=b"the token \xff") as cas:
        assert ask(cas, access_token=b"the token \xff").argv == (b"prog",)
    (request,) = cas.seen.configure
    assert sorted(request) == ["access_token_proof", "endorsements", "evidence", "nonce", "service", "tee"]
    assert "the token" not in json.dumps(request)


def test_f199_a_cas_without_the_token_configures_nothing() -> None:
    """F199: a false CAS cannot answer as if the session had no token."""
    with simulated() as cas, pytest.raises(OutsideError, match="the CAS did not prove that it has the token"):
        ask(cas, access_token=b"token")


def test_f199_a_proof_that_nobody_asked_for_is_against_the_protocol() -> None:
    """F199: a token on the side of the CAS only."""
    answer = http(200, {**configuration(), "access_token_proof": "ab" * 32})
    with simulated(configure=answer) as cas, pytest.raises(InputError, match="SERVICE_ACCESS_TOKEN is not set here"):
        ask(cas)


@pytest.mark.parametrize("proof", ["ab" * 31, "AB" * 32, "", None, 7])
def test_a_proof_of_another_form_is_refused(proof: object) -> None:
    answer = http(200, {**configuration(), "access_token_proof": proof})
    with simulated(configure=answer) as cas, pytest.raises(InputError, match="answer, access_token_proof: expected"):
        ask(cas, access_token=b"token")


def test_evidence_over_other_data_is_refused_with_the_reasons_and_the_denial_id() -> None:
    with simulated() as cas, pytest.raises(DeniedError) as caught:
        ask(cas, lambda _: honest(bytes(64)))
    assert caught.value.chain == ("CAS refused to configure shop/web", "evidence refused", "report_data")
    assert (caught.value.status, caught.value.denial) == (403, "d-1")


@pytest.mark.parametrize("name", ["challenge", "configure"])
@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, {"msg": ["no such service"]}, DeniedError, "CAS refused to configure shop/web: no such service"),
        (401, {"msg": []}, DeniedError, "refused to configure shop/web: HTTP status 401"),
        (400, {"msg": "text"}, DeniedError, "refused to configure shop/web: HTTP status 400"),
        (400, {"msg": [{"a": 1}]}, DeniedError, "refused to configure shop/web: {'a': 1}"),
        (500, {"msg": ["database"]}, OutsideError, r"cannot configure shop/web now \(HTTP status 500\): database"),
        (301, {}, InputError, "HTTP status 301, which its protocol does not have"),
        (204, {}, InputError, "HTTP status 204, which its protocol does not have"),
    ],
)
def test_refusals(name: str, status: int, body: dict[str, Any], kind: type[OstiaryError], message: str) -> None:
    with simulated(**{name: http(status, body)}) as cas, pytest.raises(kind, match=message):
        ask(cas)


def test_a_refusal_without_json() -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\nInvalid"
    with simulated(challenge=answer) as cas, pytest.raises(DeniedError, match="HTTP status 400 without further words"):
        ask(cas)


def test_what_is_printed_of_a_refusal_cannot_steer_a_terminal() -> None:
    body: dict[str, object] = {"msg": ["\x1b[2Jgone\r\n\u202etxt" + "x" * 5000] * 40, "denial": "\x07id"}
    with simulated(configure=http(403, body)) as cas, pytest.raises(DeniedError) as caught:
        ask(cas)
    assert len(caught.value.causes) == 32
    assert caught.value.causes[0].startswith(" [2Jgone   txtx")
    assert len(caught.value.causes[0]) == 2000
    assert caught.value.denial == " id"


@pytest.mark.parametrize("nonce", [None, 7, "", "ab" * 31, "zz" * 32, "ä" * 64])
def test_a_challenge_without_proper_nonce(nonce: object) -> None:
    with simulated(challenge=http(200, {"nonce": nonce})) as cas:
        with pytest.raises(InputError, match="has no nonce of 64 hex digits"):
            ask(cas)
        assert cas.seen.paths == ["/v1/challenge"], "no evidence is made over anything else"


@pytest.mark.parametrize("body", [b"", b"[]", json.dumps({"argv": []}).encode()])
def test_a_configuration_that_is_none(body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with simulated(configure=answer) as cas, pytest.raises(InputError, match="the CAS's answer"):
        ask(cas)


def test_trouble_of_the_attester_is_passed_on() -> None:
    def fail(_: bytes) -> Evidence:
        raise OutsideError("no quoting daemon")

    with simulated() as cas:
        with pytest.raises(OutsideError, match="no quoting daemon"):
            ask(cas, fail)
        assert cas.seen.configure == []
