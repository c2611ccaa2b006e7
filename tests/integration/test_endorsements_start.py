"""Whole starts by endorsements of a vendor: the first asks it, later ones do not, a restart forgets nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.program import attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, NOW
from tests.simulators.vendors import DAY, OF_QUOTE, TCB_INFO, Vendor, VendorServer, hanging, said
from typer.testing import CliRunner

from ostiary.cli.endorsements import app, options
from ostiary.evidence.endorsements.bundle_file import write_bundle

SESSION = f"""
name: a
version: "0.3.12"
security: {{attestation: {{tolerate: [TOLERATE]}}}}
services: [{{name: s, command: p, attestation: [{{mrenclave: ['{MR_ENCLAVE.hex()}']}}]}}]
"""


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def server(tmp_path: Path, vendor: Vendor) -> Iterator[VendorServer]:
    made = VendorServer(tmp_path, replace(vendor))
    yield made
    made.server.close()


def start(service: RunningService, client: Client, vendor: Vendor, endorsements: bytes = b"") -> Answer:
    with attesting(service, client) as program:
        nonce = program.challenge()
        return program.configure(nonce, vendor.platform.quote(report_data=program.binding(nonce)), endorsements, "a/s")


def upload(service: RunningService, alice: Client, tolerate: str = "") -> None:
    text = SESSION.replace("TOLERATE", tolerate)
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201


def test_starts_go_on_without_the_vendor_and_after_a_restart(
    tmp_path: Path, server: VendorServer, alice: Client, eve: Client
) -> None:
    roots, data = server.vendor.anchors.intel, tmp_path / "data"
    with running_service(data, roots=roots, fixed_time=NOW, sources=server.sources) as service:
        upload(service, alice)
        assert start(service, eve, server.vendor).status == 200
    asked = len(server.asked)
    assert asked == len(OF_QUOTE)
    go_on = threading.Event()
    server.in_place_of = dict.fromkeys(OF_QUOTE, hanging(go_on))
    with running_service(data, roots=roots, fixed_time=NOW, sources=server.sources) as service:
        assert start(service, eve, server.vendor).status == 200
        service.clock.ahead = 19 * DAY
        assert start(service, eve, server.vendor).status == 200
    assert len(server.asked) == asked
    go_on.set()


def test_a_start_that_no_endorsements_help_is_denied(
    tmp_path: Path, server: VendorServer, alice: Client, eve: Client
) -> None:
    server.in_place_of[TCB_INFO] = said(500)
    with running_service(
        tmp_path / "data", roots=server.vendor.anchors.intel, fixed_time=NOW, sources=server.sources
    ) as service:
        upload(service, alice)
        answer = start(service, eve, server.vendor)
        assert answer.status == 403
        assert "the platform sent no endorsements that can be used" in answer.body["msg"][0]


def test_older_data_that_a_platform_sends_does_not_hide_its_state(
    tmp_path: Path, server: VendorServer, alice: Client, eve: Client
) -> None:
    older = server.vendor
    server.vendor = replace(older, number=6, status="OutOfDate")
    with running_service(
        tmp_path / "data", roots=older.anchors.intel, fixed_time=NOW, sources=server.sources
    ) as service:
        upload(service, alice)
        assert start(service, eve, older).status == 403
        answer = start(service, eve, older, older.collateral())
        assert answer.status == 403
        assert "TCB status OutOfDate" in " ".join(answer.body["msg"])


def test_the_forecast_names_the_services_that_early_data_refuses(
    tmp_path: Path, server: VendorServer, alice: Client, eve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = server.vendor
    with running_service(
        tmp_path / "data", roots=vendor.anchors.intel, fixed_time=NOW, sources=server.sources
    ) as service:
        upload(service, alice)
        assert start(service, eve, vendor).status == 200
        service.cas.last_evidence.write()
    early = replace(vendor, number=7, status="OutOfDate").endorsement(TCB_INFO)
    (tmp_path / "early.json").write_bytes(write_bundle([early]))
    (tmp_path / "root.pem").write_bytes(vendor.platform.root_der)
    monkeypatch.setattr(options, "_now", lambda: NOW)
    common = ["forecast", "--data", str(tmp_path / "data"), "--intel-root", str(tmp_path / "root.pem")]
    calm = CliRunner().invoke(app, [*common, "--json"])
    assert calm.exit_code == 0, calm.output
    (found,) = json.loads(calm.stdout)
    assert (found["session"], found["service"], found["now"]["admitted"]) == ("a", "s", True)
    assert found["with_given"] is None
    storm = CliRunner().invoke(app, [*common, "--given", str(tmp_path / "early.json"), "--json"])
    assert storm.exit_code == 1
    (found,) = json.loads(storm.stdout)
    assert found["now"]["admitted"]
    assert found["with_given"]["tcb_status"] == "OutOfDate"
    assert "tolerate" in found["with_given"]["reasons"][0]
    server.early = replace(vendor, number=7, status="OutOfDate")
    (tmp_path / "server.crt").write_text(server.server.certificate)
    asking = ["--early", "--pcs", server.server.url, "--endorsements-ca", str(tmp_path / "server.crt")]
    told = CliRunner().invoke(app, [*common, *asking])
    assert told.exit_code == 1
    assert "a/s on sgx" in told.stdout
    assert "by the given data: refused: " in told.stdout
    assert any("update=early" in target for target in server.asked)
    late = CliRunner().invoke(app, [*common, "--at", "2026-12-20T00:00:00Z"])
    assert late.exit_code == 1
    assert "refused: " in late.stdout


def test_a_forecast_names_what_is_gone(
    tmp_path: Path, server: VendorServer, alice: Client, eve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that the session does not have any more is refused, not forgotten."""
    vendor = server.vendor
    with running_service(
        tmp_path / "data", roots=vendor.anchors.intel, fixed_time=NOW, sources=server.sources
    ) as service:
        upload(service, alice)
        assert start(service, eve, vendor).status == 200
        service.cas.last_evidence.write()
        current = service.cas.sessions.require("a").parsed.hash.hex()
        newer = SESSION.replace("TOLERATE", "").replace("name: s,", "name: other,") + f"predecessor: {current}\n"
        assert alice.request(service.client_port, "POST", "/session", newer.encode()).status == 201
    (tmp_path / "root.pem").write_bytes(vendor.platform.root_der)
    monkeypatch.setattr(options, "_now", lambda: NOW)
    told = CliRunner().invoke(
        app, ["forecast", "--data", str(tmp_path / "data"), "--intel-root", str(tmp_path / "root.pem")]
    )
    assert told.exit_code == 1
    assert "session a has no service 's' any more" in told.stdout


def test_a_forecast_judges_at_its_time_and_as_the_session_says(
    tmp_path: Path, server: VendorServer, alice: Client, eve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grace has a last day, endorsements an age, and what no evidence shows is demanded in vain."""

    def superseded(members: dict[str, Any]) -> None:
        (level,) = members["tcbLevels"]
        newer = {**level, "tcb": {**level["tcb"], "pcesvn": 99}, "tcbDate": "2026-11-01T00:00:00Z"}
        members["tcbLevels"] = [newer, {**level, "tcbStatus": "OutOfDate"}]

    vendor = server.vendor = replace(server.vendor, change=superseded)
    (tmp_path / "root.pem").write_bytes(vendor.platform.root_der)
    monkeypatch.setattr(options, "_now", lambda: NOW)
    data = str(tmp_path / "data")
    graced = SESSION.replace("tolerate: [TOLERATE]", "tcb: {grace: 30 days}, max_age: 25 days")

    def forecast(at: str) -> dict[str, Any]:
        arguments = ["forecast", "--data", data, "--intel-root", str(tmp_path / "root.pem"), "--at", at, "--json"]
        (found,) = json.loads(CliRunner().invoke(app, arguments).stdout)
        return dict(found)

    def reasons(at: str) -> str:
        return " ".join(forecast(at)["now"]["reasons"])

    with running_service(tmp_path / "data", roots=vendor.anchors.intel, fixed_time=NOW, sources=server.sources) as it:
        assert alice.request(it.client_port, "POST", "/session", graced.encode()).status == 201
        assert start(it, eve, vendor).status == 200
        it.cas.last_evidence.write()
    today = forecast("2026-11-23T12:00:00Z")
    assert today["now"]["admitted"]
    assert today["refused_from"] == "2026-12-01T00:00:00Z"
    assert "outdated-tcb" in reasons("2026-12-02T00:00:00Z")
    # Past their nextUpdate of 20 days, and within the age that the session allows.
    assert "outdated-tcb" in reasons("2026-12-16T00:00:00Z")
    assert "this service has none for it" in reasons("2026-12-19T00:00:00Z")
    with running_service(tmp_path / "data", roots=vendor.anchors.intel, fixed_time=NOW, sources=server.sources) as it:
        current = it.cas.sessions.current("a")
        assert current is not None
        text = (
            graced.replace("25 days}", "25 days}, singleton_enclaves: true")
            + f"predecessor: {current.parsed.hash.hex()}\n"
        )
        assert alice.request(it.client_port, "POST", "/session", text.encode()).status == 201
    assert "singleton_enclaves" in reasons("2026-11-23T12:00:00Z")
