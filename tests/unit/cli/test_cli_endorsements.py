"""`ostiary endorsements`: what is fetched, carried and shown, and each way to be refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.simulators.sgx_platform import NOW
from tests.simulators.snp_chip import CHIP_ID, TCB
from tests.simulators.vendors import AMD_CRL, DAY, OF_QUOTE, OF_REPORT, TCB_INFO, Vendor, VendorServer, said
from typer.testing import CliRunner, Result

from ostiary.audit import Frontier
from ostiary.broker.open import close_cas, make_cas
from ostiary.broker.shelf import Shelf
from ostiary.cli.endorsements import app, asking, options
from ostiary.cli.endorsements.options import sources_of
from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError, OstiaryError, StoreError
from ostiary.evidence.endorsements.bundle_file import read_bundle, write_bundle
from ostiary.evidence.endorsements.vendors import AMD_KDS, INTEL_PCS
from ostiary.platform.pki import FMSPC
from ostiary.store import open_store

EARLY = ["--early"]


class Shop:
    """A vendor's server, roots in files, and the command line."""

    def __init__(self, directory: Path, vendor: Vendor) -> None:
        self.directory = directory
        self.server = VendorServer(directory, replace(vendor))
        (directory / "intel.pem").write_bytes(vendor.platform.root_der)
        (directory / "amd.pem").write_bytes(vendor.chip.root.pem)
        (directory / "server.crt").write_text(self.server.server.certificate)
        (directory / "quote.bin").write_bytes(vendor.platform.quote())
        (directory / "report.bin").write_bytes(vendor.chip.report())
        self.bundle = directory / "bundle.json"
        self.data = directory / "data"

    @property
    def vendor(self) -> Vendor:
        return self.server.vendor

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def run(self, command: str, *arguments: object) -> Result:
        roots = ["--intel-root", self.path("intel.pem"), "--amd-root", self.path("amd.pem")]
        return CliRunner().invoke(app, [command, *map(str, arguments), *roots])

    def fetch(self, *arguments: object) -> Result:
        url = self.server.server.url
        asked = ["--pcs", url, "--kds", url, "--endorsements-ca", self.path("server.crt")]
        return self.run("fetch", *arguments, *asked)

    def begin_service(self) -> None:
        """A service that ran once."""
        store = open_store(self.data, random=os.urandom, log=Frontier(), warn=lambda _: None)
        anchors = self.vendor.anchors
        close_cas(make_cas(store, roots=anchors.intel + anchors.amd, now=lambda: NOW, random=os.urandom))


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def shop(tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(options, "_now", lambda: NOW)
    made = Shop(tmp_path, vendor)
    yield made
    made.server.server.close()


def refused(result: Result, kind: type[OstiaryError], match: str) -> None:
    assert isinstance(result.exception, kind), result.output
    assert match in str(result.exception)


# --- fetch -----------------------------------------------------------------------------------------------------------


def test_what_evidence_needs_is_fetched_into_a_bundle(shop: Shop) -> None:
    result = shop.fetch(shop.path("quote.bin"), shop.path("report.bin"), "--to", shop.bundle)
    assert result.exit_code == 0, result.output
    assert sorted(result.stdout.split()) == sorted(map(str, (*OF_QUOTE, *OF_REPORT)))
    assert {piece.part for piece in read_bundle(shop.bundle.read_bytes())} == {*OF_QUOTE, *OF_REPORT}


def test_a_chip_is_fetched_by_its_name(shop: Shop) -> None:
    result = shop.fetch("--chip", f"Milan/{CHIP_ID.hex()}/{TCB.hex()}", "--to", shop.bundle)
    assert sorted(result.stdout.split()) == sorted(map(str, OF_REPORT))


def test_a_kind_of_platform_is_fetched_for_both_tees_and_both_cas(shop: Shop) -> None:
    """The simulator has nothing for TDX: that is told, and the rest is stored."""
    result = shop.fetch("--fmspc", FMSPC.hex().upper(), "--to", shop.bundle)
    assert result.exit_code == 69
    assert set(result.stdout.split()) == set(map(str, OF_QUOTE))
    assert "tcb-info/tdx/4f7374696172: " in result.stderr
    assert "qe-identity/tdx: " in result.stderr
    assert "pck-crl/processor: " in result.stderr


def test_again_fetches_what_is_there_and_keeps_what_is_newer(shop: Shop) -> None:
    shop.fetch(shop.path("quote.bin"), "--to", shop.bundle)
    shop.server.vendor = replace(shop.vendor, number=6)
    assert len(shop.fetch("--again", "--to", shop.bundle).stdout.split()) == 4
    shop.server.vendor = replace(shop.vendor, number=5)
    before = shop.bundle.read_bytes()
    assert shop.fetch("--again", "--to", shop.bundle).stdout == ""
    assert shop.bundle.read_bytes() == before


def test_fetch_puts_endorsements_into_a_data_directory(shop: Shop) -> None:
    shop.begin_service()
    assert len(shop.fetch(shop.path("quote.bin"), "--data", shop.data).stdout.split()) == 4
    shop.server.vendor = replace(shop.vendor, number=6)
    assert len(shop.fetch("--again", "--data", shop.data).stdout.split()) == 4


def test_a_vendor_that_fails_is_told_and_the_rest_is_stored(shop: Shop) -> None:
    shop.server.in_place_of[TCB_INFO] = said(404)
    result = shop.fetch(shop.path("quote.bin"), "--to", shop.bundle)
    assert result.exit_code == 69
    assert f"{TCB_INFO}: 127.0.0.1" in result.stderr
    assert "status 404" in result.stderr
    assert len(read_bundle(shop.bundle.read_bytes())) == 3


def test_early_data_is_fetched_into_a_bundle_and_into_no_service(shop: Shop) -> None:
    shop.begin_service()
    refused(shop.fetch(*EARLY, shop.path("quote.bin"), "--data", shop.data), ConfigurationError, "does not count yet")
    shop.fetch(*EARLY, shop.path("quote.bin"), "--to", shop.bundle)
    assert any("update=early" in target for target in shop.server.asked)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--to", "x"], "nothing to fetch"),
        (["quote.bin"], "name either a bundle with --to or a data directory with --data"),
        (["quote.bin", "--to", "x", "--data", "y"], "name either a bundle with --to or"),
        (["none.bin", "--to", "x"], "No such file"),
        (["quote.bin", "--data", "nowhere"], "no such directory"),
        (["quote.bin", "--to", "x", "--pcs", "http://p"], "--pcs http://p: expected https://HOST"),
        (["quote.bin", "--to", "x", "--endorsements-ca", "none.pem"], "--endorsements-ca"),
        (["quote.bin", "--to", "nowhere/x"], "No such file"),
    ],
)
def test_wrong_usage_of_fetch(shop: Shop, arguments: list[str], match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.directory)
    result = shop.fetch(*arguments) if "--endorsements-ca" not in arguments and "--pcs" not in arguments else None
    refused(result or shop.run("fetch", *arguments), ConfigurationError, match)


def test_a_file_without_evidence_is_refused(shop: Shop) -> None:
    for data in (b"garbage", bytes(1184), bytes(100_000)):
        (shop.directory / "x").write_bytes(data)
        refused(shop.fetch(shop.path("x"), "--to", shop.bundle), EvidenceFormatError, "no SGX or TDX quote and no SNP")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--chip", "Milan/00/00", "--chip 'Milan/00/00': expected PRODUCT/CHIP/TCB in lower-case hex digits"),
        ("--fmspc", "606a", "--fmspc '606a': expected 12 hex digits"),
    ],
)
def test_a_platform_that_no_vendor_names_so_is_refused_by_the_option(
    shop: Shop, option: str, value: str, says: str
) -> None:
    refused(shop.fetch(option, value, "--to", shop.bundle), ConfigurationError, says)


def test_a_file_that_is_no_bundle_is_named(shop: Shop) -> None:
    for data in (b"name: shop\n", b'{"tcb_info": ""}'):
        (shop.directory / "x").write_bytes(data)
        shown = shop.run("show", shop.path("x"))
        refused(shown, EvidenceFormatError, f"{shop.path('x')}: no bundle of endorsements: ")
        refused(shown, EvidenceFormatError, "expected a file of `ostiary endorsements export`")


def test_a_bundle_that_does_not_verify_is_left_as_it_is(shop: Shop) -> None:
    shop.bundle.write_bytes(write_bundle([Vendor().endorsement(TCB_INFO)]))
    before = shop.bundle.read_bytes()
    refused(shop.fetch(shop.path("quote.bin"), "--to", shop.bundle), EvidenceRefusedError, "does not trust")
    assert shop.bundle.read_bytes() == before


def test_vendors_have_names() -> None:
    places = sources_of("intel", "amd", None).places
    assert (places.pcs, places.kds) == (INTEL_PCS, AMD_KDS)
    assert sources_of(None, None, None).places.pcs is None


def test_a_bar_is_shown_to_people_only_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0])
    monkeypatch.setattr("ostiary.cli.endorsements.asking.time.monotonic", lambda: next(clock, 9.0))
    shown: list[bool] = []
    from rich.progress import Progress

    update = Progress.update

    def note(self: Progress, task: int, **changed: object) -> None:
        shown.append(bool(changed["visible"]))
        update(self, task, **changed)  # type: ignore[arg-type]

    monkeypatch.setattr(Progress, "update", note)
    with asking._progress(2) as advance:
        advance()
        advance()
    assert shown == [False, True]


# --- export, import, show --------------------------------------------------------------------------------------------


def make_bundle(shop: Shop, vendor: Vendor) -> Path:
    shop.bundle.write_bytes(write_bundle([vendor.endorsement(part) for part in (*OF_QUOTE, *OF_REPORT)]))
    return shop.bundle


def test_a_bundle_goes_in_and_comes_out(shop: Shop) -> None:
    shop.begin_service()
    bundle = make_bundle(shop, shop.vendor)
    assert len(shop.run("import", bundle, "--data", shop.data).stdout.split()) == 7
    assert shop.run("import", bundle, "--data", shop.data).stdout == "", "nothing of it is new any more"
    out = shop.directory / "out.json"
    assert shop.run("export", "--data", shop.data, "--to", out).exit_code == 0
    assert out.read_bytes() == bundle.read_bytes()
    assert shop.run("export", "--data", shop.data).stdout_bytes == bundle.read_bytes()


def test_a_forged_bundle_is_refused(shop: Shop) -> None:
    shop.begin_service()
    bundle = make_bundle(shop, Vendor())
    refused(shop.run("import", bundle, "--data", shop.data), EvidenceRefusedError, "does not trust")
    assert json.loads(shop.run("show", "--data", shop.data, "--json").stdout) == []


def test_a_directory_in_which_no_service_ran_is_refused(shop: Shop) -> None:
    """Else the store would look older than this version at the first start of the service."""
    bundle = make_bundle(shop, shop.vendor)
    refused(shop.run("import", bundle, "--data", shop.data), ConfigurationError, "no such directory")
    assert not shop.data.exists()
    with open_store(shop.data, random=os.urandom, log=Frontier(), warn=lambda _: None):
        pass
    refused(
        shop.run("import", bundle, "--data", shop.data), ConfigurationError, "no service of this version has run there"
    )


def test_a_service_that_runs_sees_what_is_imported(shop: Shop) -> None:
    """Both are processes over one database."""
    shop.begin_service()
    bundle, anchors = make_bundle(shop, shop.vendor), shop.vendor.anchors
    with open_store(shop.data, random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        running = Shelf(store, anchors, now=lambda: NOW, random=os.urandom)
        assert running.held(TCB_INFO) is None
        assert len(shop.run("import", bundle, "--data", shop.data).stdout.split()) == 7
        running.look()
        kept = running.held(TCB_INFO)
        assert kept is not None
        assert kept.endorsement.number == 5
        newer = replace(shop.vendor, number=6)
        assert running.put([newer.endorsement(TCB_INFO)], "vendor") == (TCB_INFO,)
        assert shop.run("import", bundle, "--data", shop.data).stdout == ""


def test_show_says_what_is_there_and_until_when(shop: Shop) -> None:
    rows = json.loads(shop.run("show", make_bundle(shop, shop.vendor), "--json").stdout)
    assert [row["part"] for row in rows] == sorted(row["part"] for row in rows)
    by_part = {row["part"]: row for row in rows}
    assert by_part[str(TCB_INFO)] == {
        "part": str(TCB_INFO),
        "state": "ok",
        "number": 5,
        "issued": "2026-11-23T11:00:00Z",
        "until": "2026-12-13T11:00:00Z",
        "origin": "vendor",
    }
    lines = shop.run("show", shop.bundle).stdout.splitlines()
    assert lines[0].startswith(f"{rows[0]['part']}  ok  ")
    assert len(lines) == 7


def test_show_says_what_has_ended(shop: Shop) -> None:
    old = replace(shop.vendor, issued=NOW - 30 * DAY)
    shop.bundle.write_bytes(write_bundle([old.endorsement(AMD_CRL), shop.vendor.endorsement(TCB_INFO)]))
    rows = json.loads(shop.run("show", shop.bundle, "--json").stdout)
    assert {row["part"]: row["state"] for row in rows} == {str(AMD_CRL): "ended", str(TCB_INFO): "ok"}
    late = json.loads(shop.run("show", shop.bundle, "--json", "--at", "2026-12-14").stdout)
    assert {row["state"] for row in late} == {"ended"}


def test_show_of_a_directory_says_who_brought_it(shop: Shop) -> None:
    shop.begin_service()
    shop.run("import", make_bundle(shop, shop.vendor), "--data", shop.data)
    rows = json.loads(shop.run("show", "--data", shop.data, "--json").stdout)
    assert {row["origin"] for row in rows} == {"vendor"}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "name either a bundle or a data directory"),
        (["x", "--data", "y"], "name either a bundle or a data directory"),
        (["x", "--at", "soon"], "--at soon: expected a time"),
        (["x"], "No such file"),
    ],
)
def test_wrong_usage_of_show(shop: Shop, arguments: list[str], match: str) -> None:
    refused(shop.run("show", *arguments), ConfigurationError, match)


def test_a_root_that_is_none_is_refused(shop: Shop) -> None:
    make_bundle(shop, shop.vendor)
    result = CliRunner().invoke(app, ["show", str(shop.bundle), "--intel-root", shop.path("quote.bin")])
    refused(result, ConfigurationError, "not a certificate")
    result = CliRunner().invoke(app, ["show", str(shop.bundle)])
    refused(result, EvidenceRefusedError, "does not trust")


# --- forecast --------------------------------------------------------------------------------------------------------


def test_evidence_in_a_file_is_judged_by_tcb_info_in_a_file(shop: Shop) -> None:
    make_bundle(shop, shop.vendor)
    (shop.directory / "tcb.json").write_bytes(replace(shop.vendor, number=7, status="OutOfDate").answer(TCB_INFO)[1])
    result = shop.run("forecast", shop.path("quote.bin"), "--bundle", shop.bundle, "--tcb-info", shop.path("tcb.json"))
    assert result.exit_code == 1
    assert "quote.bin on sgx: admitted, TCB status UpToDate" in result.stdout
    assert "by the given data: refused: TCB status OutOfDate" in result.stdout
    assert "2026-12-13T11:00:00Z  tcb-info/sgx/4f7374696172 ends, unless it is renewed" in result.stdout


def test_a_calm_forecast_ends_with_zero(shop: Shop) -> None:
    make_bundle(shop, shop.vendor)
    result = shop.run("forecast", shop.path("quote.bin"), shop.path("report.bin"), "--bundle", shop.bundle, "--json")
    assert result.exit_code == 0, result.output
    assert [one["now"]["admitted"] for one in json.loads(result.stdout)] == [True, True]
    assert {one["refused_from"] for one in json.loads(result.stdout)} == {
        "2026-12-13T11:00:00Z",
        "2026-11-24T12:00:00Z",
    }


def test_tcb_info_in_a_file_needs_its_signer(shop: Shop) -> None:
    (shop.directory / "tcb.json").write_bytes(shop.vendor.answer(TCB_INFO)[1])
    arguments = ["forecast", shop.path("quote.bin"), "--tcb-info", shop.path("tcb.json")]
    refused(shop.run(*arguments), ConfigurationError, "nothing says who signed it")
    (shop.directory / "chain.pem").write_bytes(shop.vendor.signer_chain)
    assert shop.run(*arguments, "--issuer-chain", shop.path("chain.pem")).exit_code == 1, (
        "there is nothing but TCB info"
    )
    refused(shop.run(*arguments, "--issuer-chain", shop.path("none")), ConfigurationError, "No such file")
    (shop.directory / "tcb.json").write_bytes("é".encode())
    refused(shop.run(*arguments, "--issuer-chain", shop.path("chain.pem")), EvidenceFormatError, "not ASCII")


def test_early_data_that_cannot_be_had_is_no_forecast(shop: Shop) -> None:
    make_bundle(shop, shop.vendor)
    shop.server.in_place_of[TCB_INFO] = said(500)
    result = shop.run(
        "forecast", shop.path("quote.bin"), "--bundle", shop.bundle, "--early",
        "--pcs", shop.server.server.url, "--endorsements-ca", shop.path("server.crt"),
    )  # fmt: skip
    refused(result, OstiaryError, "status 500")


@pytest.mark.parametrize("arguments", [[], ["quote.bin", "--data", "x"]])
def test_wrong_usage_of_forecast(shop: Shop, arguments: list[str]) -> None:
    refused(shop.run("forecast", *arguments), ConfigurationError, "name either EVIDENCE files or a data directory")


def test_a_directory_that_is_not_there_is_not_made(shop: Shop) -> None:
    refused(shop.run("forecast", "--data", shop.data), ConfigurationError, "no such directory")
    assert not shop.data.exists()


def test_a_data_directory_that_cannot_be_opened_is_closed_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.begin_service()
    monkeypatch.setattr("ostiary.broker.open.make_cas", _failing)
    refused(shop.run("forecast", "--data", shop.data), StoreError, "broken")
    monkeypatch.undo()
    with open_store(shop.data, random=os.urandom, log=Frontier(), warn=lambda _: None):
        pass


def _failing(*_arguments: object, **_named: object) -> None:
    raise StoreError("broken")


def test_the_time_is_that_of_the_system() -> None:
    assert abs((options.time_of(None) - datetime.now(UTC)).total_seconds()) < 60
    assert options.time_of("2026-12-31T12:00:00+01:00").hour == 11


def test_where_nothing_is_people_are_told_so_and_stdout_is_empty(shop: Shop) -> None:
    shop.bundle.write_bytes(write_bundle([]))
    shown = shop.run("show", shop.bundle)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", "no endorsements are there\n")
    assert shop.run("show", shop.bundle, "--json").stdout == "[]\n"
