"""Report data binds evidence to a nonce and to both ends of a connection."""

from __future__ import annotations

import hashlib

import pytest

from ostiary.attester.binding import qualifying_data, report_data

NONCE = bytes(range(32))


def test_report_data_is_the_documented_hash() -> None:
    client, server = hashlib.sha256(b"client").digest(), hashlib.sha256(b"server").digest()
    expected = hashlib.sha512(b"ostiary-attest-v1" + NONCE + client + server).digest()
    assert report_data(nonce=NONCE, client_spki=b"client", server_spki=b"server") == expected


def test_another_nonce_client_or_server_gives_other_report_data() -> None:
    made = {
        report_data(nonce=nonce, client_spki=client, server_spki=server)
        for nonce in (NONCE, bytes(32))
        for client in (b"a", b"b")
        for server in (b"a", b"b")
    }
    assert len(made) == 8


@pytest.mark.parametrize("size", [0, 31, 33])
def test_nonce_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"nonce of {size} bytes, expected 32"):
        report_data(nonce=bytes(size), client_spki=b"c", server_spki=b"s")


def test_a_tpm_quotes_the_hash_of_the_report_data() -> None:
    """32 bytes, which every TPM takes as qualifying data."""
    data = report_data(nonce=NONCE, client_spki=b"client", server_spki=b"server")
    assert qualifying_data(data) == hashlib.sha256(data).digest()
    assert qualifying_data(data) != qualifying_data(data[:-1] + b"\0")
