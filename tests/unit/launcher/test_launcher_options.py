"""The command line of `ostiary run`."""

from __future__ import annotations

import pytest

from ostiary.attester.table import NAMES
from ostiary.launcher.options import HELP, SYSTEM_PLATFORM_SOCKET, Listing, Options, UsageError, parse_options

REQUIRED = ["--cas", "cas.example", "--service", "shop/web"]


def parse(*arguments: str, env: dict[str, str] | None = None, existing: tuple[str, ...] = ()) -> Options:
    options = parse_options(arguments, env or {}, existing.__contains__)
    assert isinstance(options, Options)
    return options


def test_defaults() -> None:
    assert parse(*REQUIRED) == Options(
        host="cas.example",
        port=18765,
        service="shop/web",
        cas_ca=None,
        measure=(),
        platform_socket=SYSTEM_PLATFORM_SOCKET,
        attestation=True,
        retries=3,
        command=(),
    )


def test_every_option() -> None:
    options = parse(
        *("--cas=[::1]:443", "--service", "a/b/c", "--cas-ca", "ca.pem", "--measure", "x", "--measure=y=z"),
        *("--platform-socket", "s", "--no-attestation", "--retries", "0", "--", "prog", "--cas", "-h", "--"),
    )
    assert options == Options(
        host="::1",
        port=443,
        service="a/b/c",
        cas_ca="ca.pem",
        measure=("x", "y=z"),
        platform_socket="s",
        attestation=False,
        retries=0,
        command=("prog", "--cas", "-h", "--"),
    )


def test_the_environment_stands_in_for_options() -> None:
    env = {"SCONE_CAS_ADDR": "c:1", "SCONE_CONFIG_ID": "s/t", "OSTIARY_CAS_CA": "f", "OSTIARY_PLATFORM_SOCKET": "p"}
    options = parse(env=env)
    assert (options.host, options.port, options.service) == ("c", 1, "s/t")
    assert (options.cas_ca, options.platform_socket) == ("f", "p")


@pytest.mark.parametrize("password", ["287082", "000000"])
def test_a_one_time_password_stands_behind_the_service_and_is_not_shown(password: str) -> None:
    for options in (
        parse("--cas", "h", "--service", f"a/b/c@{password}"),
        parse("--cas", "h", env={"SCONE_CONFIG_ID": f"a/b/c@{password}"}),
    ):
        assert (options.service, options.one_time_password) == ("a/b/c", password)
        assert password not in repr(options)


def test_a_one_time_password_that_is_none_is_not_shown() -> None:
    for service in ("a/b@12345678", "a@12345678", "a b/c@12345678"):
        with pytest.raises(UsageError) as caught:
            parse("--cas", "h", "--service", service)
        assert "12345678" not in str(caught.value)


def test_help_has_an_example_with_a_one_time_password() -> None:
    assert "SCONE_CONFIG_ID=shop/admin@287082 ostiary run" in HELP
    assert "SCONE_SERVICE_ACCESS_TOKEN" in HELP


def test_options_win_over_the_environment() -> None:
    env = {"SCONE_CAS_ADDR": "c:1", "SCONE_CONFIG_ID": "s/t", "OSTIARY_CAS_CA": "f", "OSTIARY_PLATFORM_SOCKET": "p"}
    options = parse(*REQUIRED, "--cas-ca", "g", "--platform-socket", "q", env=env)
    assert (options.host, options.service, options.cas_ca, options.platform_socket) == (
        "cas.example",
        "shop/web",
        "g",
        "q",
    )


@pytest.mark.parametrize(
    ("existing", "expected"),
    [(("/run/user/7/ostiary/platform.sock",), "/run/user/7/ostiary/platform.sock"), ((), SYSTEM_PLATFORM_SOCKET)],
)
def test_the_users_own_platform_socket_is_taken_if_it_exists(existing: tuple[str, ...], expected: str) -> None:
    options = parse(*REQUIRED, env={"XDG_RUNTIME_DIR": "/run/user/7"}, existing=existing)
    assert options.platform_socket == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("h", ("h", 18765)),
        ("h:65535", ("h", 65535)),
        ("[::1]", ("::1", 18765)),
        ("[fe80::1%eth0]:2", ("fe80::1%eth0", 2)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    options = parse("--cas", address, "--service", "a/b")
    assert (options.host, options.port) == expected


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["--cas", "x", "--help"]])
def test_help_needs_no_other_option(arguments: list[str]) -> None:
    assert parse_options(arguments, {}, lambda _: False) is None


def test_help_fits_a_terminal_and_names_every_option() -> None:
    assert max(map(len, HELP.splitlines())) <= 120
    for option in (
        "--cas ",
        "--service",
        "--cas-ca",
        "--measure",
        "--platform-socket",
        "--no-attestation",
        "--retries",
    ):
        assert f"  {option}" in HELP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--cas is missing; give it, or set SCONE_CAS_ADDR"),
        (["--cas", "h"], "--service is missing; give it, or set SCONE_CONFIG_ID"),
        (["--cas"], "--cas needs a value"),
        (["--cas="], "--cas needs a value that is not empty"),
        ([*REQUIRED, "--cas", "x"], "--cas is given twice"),
        ([*REQUIRED, "--nosuch=1"], "unknown option --nosuch"),
        ([*REQUIRED, "/bin/true"], "put `--` before the program"),
        ([*REQUIRED, "--"], "no command after `--`"),
        ([*REQUIRED, "--retries", "101"], "expected a number from 0 to 100"),
        ([*REQUIRED, "--retries", "-1"], "expected a number from 0 to 100"),
        ([*REQUIRED, "--retries", "²"], "expected a number from 0 to 100"),
        ([*REQUIRED, "--no-attestation=1"], "unknown option --no-attestation"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("::1", r"IPv6 address in brackets"),
        ("https://cas:1", r"IPv6|without https"),
        ("cas/", "without https"),
        ("cas:", "port '' is not a number"),
        ("cas:0", "port '0' is not a number"),
        ("cas:65536", "port '65536'"),
        ("cas:+80", "port '\\+80'"),
        (":80", "expected HOST"),
        ("a b", "expected HOST"),
        ("a\r\nX: y", "expected HOST|IPv6"),
        ("[::1", "expected \\[ADDRESS\\]"),
        ("[]:1", "expected \\[ADDRESS\\]"),
        ("[::1]80", "expected \\[ADDRESS\\]"),
        ("[::1]:", "port ''"),
    ],
)
def test_addresses_refused(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse("--cas", address, "--service", "a/b")


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("web", "expected SESSION/SERVICE"),
        ("/web", "expected SESSION/SERVICE"),
        ("a//b", "expected SESSION/SERVICE"),
        ("a/b c", "expected SESSION/SERVICE"),
        ("ä/b", "expected SESSION/SERVICE"),
        ("a/b@", "--service a/b@…: a one-time password has 6 digits"),
        *(
            (f"a/b@{text}", "a one-time password has 6 digits")
            for text in ("12345", "1234567", "12345x", "\u0661\u0662\u0663\u0664\u0665\u0666", "@12345")
        ),
        ("a@123456", "expected SESSION/SERVICE"),
        ("a/" + "b" * 1024, "at most 1025"),
    ],
)
def test_service_ids_refused(service: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse("--cas", "h", "--service", service)


def test_empty_variables_count_as_absent() -> None:
    with pytest.raises(UsageError, match="--cas is missing"):
        parse(env={"SCONE_CAS_ADDR": "", "SCONE_CONFIG_ID": "a/b"})


@pytest.mark.parametrize(
    ("arguments", "mode", "expected"),
    [
        ((), None, (None, None, False, True)),
        ((), "auto", (None, None, False, True)),
        ((), "AUTO", (None, None, False, True)),
        ((), "HW", (None, None, True, True)),
        ((), "sim", (None, None, False, False)),
        (("--attester", "nitro"), "sim", ("nitro", None, False, True)),
        (("--attester=gramine", "--attester-path", "/d"), "hw", ("gramine", "/d", True, True)),
        (("--attester", "software"), None, ("software", None, False, True)),
        (("--platform-socket", "s"), None, ("software", None, False, True)),
        (("--platform-socket", "s", "--attester", "software"), "auto", ("software", None, False, True)),
        (("--platform-socket", "s"), "sim", ("software", None, False, True)),
        (("--platform-socket", "s", "--no-attestation"), None, (None, None, False, False)),
        (("--no-attestation",), "sim", (None, None, False, False)),
    ],
)
def test_which_attester_is_asked(
    arguments: tuple[str, ...], mode: str | None, expected: tuple[str | None, str | None, bool, bool]
) -> None:
    """SCONE_MODE says what is enough; who names an attester, or the software platform's socket, means it."""
    options = parse(*REQUIRED, *arguments, env={} if mode is None else {"SCONE_MODE": mode})
    assert (options.attester, options.attester_path, options.hardware, options.attestation) == expected


def test_a_variable_tells_where_the_software_platform_is_and_not_to_take_it() -> None:
    options = parse(*REQUIRED, env={"OSTIARY_PLATFORM_SOCKET": "p"})
    assert (options.platform_socket, options.attester) == ("p", None)


@pytest.mark.parametrize(
    ("arguments", "mode", "message"),
    [
        ((), "simulation", "SCONE_MODE 'simulation': expected hw, sim, auto"),
        (("--attester", "sgx"), None, "--attester 'sgx': expected one of gramine, configfs-tsm, nitro"),
        (("--attester-path", "/d"), None, "--attester-path needs --attester"),
        (("--attester", "nitro", "--platform-socket", "s"), None, "of the software platform alone"),
        (("--attester", "software", "--attester-path", "/d", "--platform-socket", "s"), None, "platform alone"),
        (("--attester", "nitro", "--no-attestation"), None, "--no-attestation sends no evidence"),
        (("--attester", "software"), "hw", "SCONE_MODE=hw asks for evidence of hardware"),
        (("--platform-socket", "s"), "hw", "SCONE_MODE=hw asks for evidence of hardware"),
        (("--no-attestation",), "hw", "SCONE_MODE=hw asks for evidence of hardware"),
        (("--json",), None, "--json is for --list-attesters"),
        (("--list-attesters=1",), None, "unknown option --list-attesters"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error(arguments: tuple[str, ...], mode: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(*REQUIRED, *arguments, env={} if mode is None else {"SCONE_MODE": mode})


def test_the_list_of_attesters_needs_no_cas() -> None:
    listing = parse_options(["--list-attesters"], {"OSTIARY_PLATFORM_SOCKET": "p"}, lambda _: False)
    assert listing == Listing(json=False, platform_socket="p", attester=None, attester_path=None, hardware=False)
    arguments = ["--json", "--attester", "nitro", "--attester-path", "n", "--list-attesters"]
    listing = parse_options(arguments, {"SCONE_MODE": "hw"}, lambda _: False)
    assert listing == Listing(
        json=True, platform_socket=SYSTEM_PLATFORM_SOCKET, attester="nitro", attester_path="n", hardware=True
    )


def test_help_names_every_attester() -> None:
    for name in NAMES:
        assert name in HELP
    for option in ("--attester ", "--attester-path", "--list-attesters", "SCONE_MODE"):
        assert f"  {option}" in HELP
