"""Each way in which a vendor's server can fail, over real TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.simulators.outside import make_certificate
from tests.simulators.sgx_platform import NOW
from tests.simulators.vendors import (
    OF_QUOTE,
    OF_REPORT,
    TCB_INFO,
    VCEK,
    Vendor,
    VendorServer,
    another_signer,
    hanging,
    said,
)

from ostiary.broker.vendors import Sources, VendorError, Vendors
from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.vendors import MAX_ANSWER_BYTES, Places


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def server(tmp_path: Path, vendor: Vendor) -> Iterator[VendorServer]:
    made = VendorServer(tmp_path, replace(vendor))
    yield made
    made.server.close()


def vendors(server: VendorServer, **changed: object) -> Vendors:
    sources = replace(server.sources, **changed)  # type: ignore[arg-type]
    return Vendors(sources, server.vendor.anchors, now=lambda: NOW)


@pytest.mark.parametrize("part", [*OF_QUOTE, *OF_REPORT], ids=str)
def test_a_part_is_fetched_and_verified(server: VendorServer, part: Part) -> None:
    chain = server.vendor.chip.middle.pem + server.vendor.chip.root.pem
    assert vendors(server).fetch(part, amd_chain=chain).part == part
    assert server.asked_parts() == [part]


@pytest.mark.parametrize("status", [400, 404, 500, 302])
def test_a_status_that_concerns_the_part(server: VendorServer, status: int) -> None:
    server.in_place_of[TCB_INFO] = said(status, b"<html>")
    with pytest.raises(VendorError, match=f"answers with status {status} when asked for {TCB_INFO}") as failed:
        vendors(server).fetch(TCB_INFO)
    assert not failed.value.everything


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "wait"), [({}, None), ({"Retry-After": "77"}, timedelta(seconds=77))])
def test_a_status_that_concerns_everything(
    server: VendorServer, status: int, header: dict[str, str], wait: timedelta | None
) -> None:
    server.in_place_of[TCB_INFO] = said(status, b"", header)
    with pytest.raises(VendorError, match=f"has no time for us, status {status}") as failed:
        vendors(server).fetch(TCB_INFO)
    assert failed.value.everything
    assert failed.value.wait == wait


def test_a_server_that_hangs_is_left_after_its_time(server: VendorServer) -> None:
    go_on = threading.Event()
    server.in_place_of[TCB_INFO] = hanging(go_on)
    try:
        with pytest.raises(VendorError, match="does not answer: timed out") as failed:
            vendors(server, seconds=0.5).fetch(TCB_INFO)
        assert failed.value.everything
    finally:
        go_on.set()


def test_half_an_answer_is_none(server: VendorServer) -> None:
    def half(_request: bytes, stream: ssl.SSLSocket) -> None:
        stream.sendall(said(200, b"x" * 1000)[:-500])

    server.in_place_of[TCB_INFO] = half
    with pytest.raises(VendorError, match="the connection was closed before the answer was complete"):
        vendors(server).fetch(TCB_INFO)


def test_an_answer_that_is_too_large_is_none(server: VendorServer) -> None:
    server.in_place_of[TCB_INFO] = said(200, b"x" * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(VendorError, match=f"answers with more than {MAX_ANSWER_BYTES} bytes"):
        vendors(server).fetch(TCB_INFO)


@pytest.mark.parametrize("part", [*OF_QUOTE, *OF_REPORT], ids=str)
def test_garbage_is_refused(server: VendorServer, part: Part) -> None:
    headers = {"TCB-Info-Issuer-Chain": "x", "SGX-Enclave-Identity-Issuer-Chain": "x", "SGX-PCK-CRL-Issuer-Chain": "x"}
    server.in_place_of[part] = said(200, b"<html>sorry</html>", headers)
    with pytest.raises(EvidenceFormatError, match="the answer for"):
        vendors(server).fetch(part)


def test_what_another_signed_is_refused(server: VendorServer) -> None:
    server.vendor = replace(server.vendor, signer=another_signer(server.vendor))
    with pytest.raises(EvidenceRefusedError, match="root that this service does not trust"):
        vendors(server).fetch(TCB_INFO)


def test_what_is_for_another_platform_is_refused(server: VendorServer) -> None:
    server.vendor = replace(server.vendor, change=lambda members: members.update(fmspc="00606a000000"))
    with pytest.raises(EvidenceRefusedError, match="another kind of platform"):
        vendors(server).fetch(TCB_INFO)


def test_what_is_from_the_future_is_refused(server: VendorServer) -> None:
    server.vendor = replace(server.vendor, issued=NOW + timedelta(days=1))
    with pytest.raises(EvidenceRefusedError, match="from the future"):
        vendors(server).fetch(TCB_INFO)


def test_a_server_that_does_not_prove_its_name_is_not_believed(server: VendorServer) -> None:
    _, other = make_certificate()
    with pytest.raises(VendorError, match="does not prove its name") as failed:
        vendors(server, trusted=other).fetch(TCB_INFO)
    assert failed.value.everything
    with pytest.raises(VendorError, match="does not prove its name"):
        vendors(server, trusted=None).fetch(TCB_INFO)


def test_nobody_is_asked_whom_nobody_named(server: VendorServer) -> None:
    with pytest.raises(VendorError, match="nobody is named who could be asked"):
        vendors(server, places=Places(pcs=server.server.url)).fetch(VCEK)
    assert Sources().server_of(TCB_INFO) is None
    assert server.asked == []


def test_anchors_that_cannot_be_read_are_told_at_the_start(vendor: Vendor) -> None:
    with pytest.raises(ConfigurationError, match="certificates to trust cannot be read"):
        Vendors(Sources(trusted="x"), vendor.anchors, now=lambda: NOW)
