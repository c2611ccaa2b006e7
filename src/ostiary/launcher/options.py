"""The options of `ostiary run`, from its arguments and a few named environment variables. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ostiary.attester.table import NAMES
from ostiary.errors import ConfigurationError

DEFAULT_PORT = 18765
DEFAULT_RETRIES = 3
MAX_RETRIES = 100
MAX_SERVICE_ID_CHARACTERS = 512 + 1 + 512
ONE_TIME_PASSWORD_DIGITS = 6
SYSTEM_PLATFORM_SOCKET = "/run/ostiary/platform.sock"

HELP = """\
Usage: ostiary run --cas HOST[:PORT] --service SESSION/SERVICE [options] [-- command [argument ...]]
       ostiary run --list-attesters [--json]

Start a program under attestation. `ostiary run` proves to the CAS what it and the program are, receives the program's
arguments, environment, working directory and injection files, and becomes the program: same process id, signals,
standard streams and exit code.

With `-- command`, that program is executed. The software platform measures it; the evidence of hardware is about the
whole enclave or virtual machine, as it was built. Arguments come from the session; those given here are used only where
the session's command says @@1, @@2, ... Without `-- command`, the first word of the session's command is looked up in
the session's PATH, and the software platform's evidence covers the launcher alone.
Nothing of the environment here reaches the program unless the session asks for it.

Options:
  --cas HOST[:PORT]        the CAS, port 18765 unless given; IPv6 as [ADDRESS]:PORT     [env: SCONE_CAS_ADDR]
  --service ID             SESSION/SERVICE, or SESSION/SERVICE@OTP                    [env: SCONE_CONFIG_ID]
                           with a one-time password of six digits, good for one start
  --cas-ca FILE            PEM certificates; the CAS's chain must lead to one of them   [env: OSTIARY_CAS_CA]
                           Name the CAS's own root here: any server with a certificate under FILE is trusted.
                           Without it, and without access token, the program cannot tell which CAS configured it.
  --attester NAME          what makes the evidence: gramine, configfs-tsm (TDX, SEV-SNP), nitro, tpm, software
                           [default: the first of them that is available; tpm only if it is named]
  --attester-path PATH     device, directory or socket of that attester, where it is not the usual one
  --list-attesters         print each attester and why it is not available here; --json for programs
  --measure FILE           measure this file too, such as a script; may be repeated
  --platform-socket PATH   socket of the software platform; as an option, it means --attester software
                           [env: OSTIARY_PLATFORM_SOCKET]
                           [default: $XDG_RUNTIME_DIR/ostiary/platform.sock if it exists, else
                           /run/ostiary/platform.sock]
  --no-attestation         send no evidence; only for sessions with `mode: none`
  --retries N              try N times more to connect, 0 to 100 [default: 3]; nothing is retried once it was sent
  -h, --help               print this

Environment:
  SCONE_MODE               hw: evidence of hardware, or no start; sim: no evidence, unless an attester is named;
                           auto or unset: the first attester that is available. In any case of letters.
  SCONE_SERVICE_ACCESS_TOKEN  the session's access token; needed where it has one. It is never sent, and the CAS must
                           prove that it has it too. There is no option for it, as others could read it there.

Exit codes, where the program was not started:
  64  usage                                    77  refused by the CAS
  69  CAS, platform or kernel facility         78  the configuration does not fit this machine
      unavailable                             126  the program cannot be executed
  70  internal error                          127  the program was not found
  76  the CAS answered against the protocol

Examples:
  ostiary run --cas cas.example --service shop/web -- /usr/bin/python3 -m http.server
  ostiary run --cas localhost --service shop/db --cas-ca cas-root.pem
  SCONE_CAS_ADDR=cas.example SCONE_CONFIG_ID=shop/web ostiary run -- ./server
  SCONE_CONFIG_ID=shop/admin@287082 ostiary run --cas cas.example -- ./admin-shell
"""


class UsageError(ConfigurationError):
    """The command line cannot be understood."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `ostiary run` was asked to do.

    host: name or address, IPv6 without brackets. service: `SESSION/SERVICE`. one_time_password: six digits or None.
    cas_ca: path of PEM trust anchors or None. measure: paths of further files to measure. attestation: False sends no
    evidence. command: program and arguments, empty if the session names the program.
    attester: its name, None for the first available; then `hardware` leaves the software platform out.
    attester_path: of the one named, None for its usual one.
    """

    host: str
    port: int
    service: str
    cas_ca: str | None
    measure: tuple[str, ...]
    platform_socket: str
    attestation: bool
    retries: int
    command: tuple[str, ...]
    attester: str | None = None
    attester_path: str | None = None
    hardware: bool = False
    one_time_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The attesters are to be printed, for a program or for people. Members as in Options."""

    json: bool
    platform_socket: str
    attester: str | None
    attester_path: str | None
    hardware: bool


_VALUED = (
    "--cas", "--service", "--cas-ca", "--measure", "--attester", "--attester-path", "--platform-socket", "--retries",
)  # fmt: skip
_REPEATABLE = ("--measure",)
_FLAGS = ("--no-attestation", "--list-attesters", "--json")
_MODES = ("hw", "sim", "auto")


def parse_options(
    arguments: Sequence[str], environment: Mapping[str, str], exists: Callable[[str], bool]
) -> Options | Listing | None:
    """Understand the arguments after `ostiary run`; None if help was asked for.

    `environment`: looked at for SCONE_CAS_ADDR, SCONE_CONFIG_ID, SCONE_MODE, OSTIARY_CAS_CA, OSTIARY_PLATFORM_SOCKET
    and XDG_RUNTIME_DIR only; empty values count as absent. `exists` tells whether a path exists.
    Raises UsageError.
    """
    split = _split(arguments)
    if split is None:
        return None
    values, flags, command = split
    attester, path, mode = _attester(values, flags, environment)
    socket = _given(values, "--platform-socket") or _platform_socket(environment, exists)
    if "--list-attesters" in flags:
        return Listing(
            json="--json" in flags,
            platform_socket=socket,
            attester=attester,
            attester_path=path,
            hardware=mode == "hw",
        )
    if "--json" in flags:
        raise UsageError("--json is for --list-attesters; the program's output is its own")
    host, port = parse_address(_single(values, "--cas", environment.get("SCONE_CAS_ADDR"), "SCONE_CAS_ADDR"))
    service, password = parse_service(
        _single(values, "--service", environment.get("SCONE_CONFIG_ID"), "SCONE_CONFIG_ID")
    )
    return Options(
        host=host,
        port=port,
        service=service,
        one_time_password=password,
        cas_ca=_given(values, "--cas-ca") or environment.get("OSTIARY_CAS_CA") or None,
        measure=tuple(values.get("--measure", ())),
        platform_socket=socket,
        attestation="--no-attestation" not in flags and (mode != "sim" or attester is not None),
        attester=attester,
        attester_path=path,
        hardware=mode == "hw",
        retries=_retries(_given(values, "--retries")),
        command=command,
    )


def _split(arguments: Sequence[str]) -> tuple[dict[str, list[str]], set[str], tuple[str, ...]] | None:
    """Option values by name, flags, and the command after `--`; None for help."""
    values: dict[str, list[str]] = {}
    flags: set[str] = set()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            if not rest:
                raise UsageError("no command after `--`; give one, or leave `--` out to run the session's own")
            return values, flags, tuple(rest)
        if argument in ("-h", "--help"):
            return None
        if argument in _FLAGS:
            flags.add(argument)
        elif name in _VALUED:
            if not equals and not rest:
                raise UsageError(f"{name} needs a value")
            _add(values, name, value if equals else rest.pop(0))
        elif argument.startswith("-"):
            raise UsageError(f"unknown option {name}; `ostiary run --help` lists them")
        else:
            raise UsageError(f"unexpected argument {argument!r}; put `--` before the program and its arguments")
    return values, flags, ()


def _add(values: dict[str, list[str]], name: str, value: str) -> None:
    if not value or "\0" in value:
        raise UsageError(f"{name} needs a value that is not empty")
    if name in values and name not in _REPEATABLE:
        raise UsageError(f"{name} is given twice")
    values.setdefault(name, []).append(value)


def _given(values: Mapping[str, list[str]], name: str) -> str | None:
    return values[name][0] if name in values else None


def _single(values: Mapping[str, list[str]], name: str, fallback: str | None, variable: str) -> str:
    value = _given(values, name) or fallback
    if not value:
        raise UsageError(f"{name} is missing; give it, or set {variable}")
    return value


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`. Raises UsageError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not host or (rest and not rest.startswith(":")):
            raise UsageError(f"--cas {text!r}: expected [ADDRESS] or [ADDRESS]:PORT")
        return host, _port(text, rest[1:]) if rest else DEFAULT_PORT
    if text.count(":") > 1:
        raise UsageError(f"--cas {text!r}: write an IPv6 address in brackets, as [::1] or [::1]:{DEFAULT_PORT}")
    host, colon, port = text.partition(":")
    if not host or "/" in text or not text.isprintable() or " " in text:
        raise UsageError(f"--cas {text!r}: expected HOST or HOST:PORT, without https:// and path")
    return host, _port(text, port) if colon else DEFAULT_PORT


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise UsageError(f"--cas {text!r}: port {port!r} is not a number from 1 to 65535")
    return int(port)


def parse_service(text: str) -> tuple[str, str | None]:
    """Service id and one-time password of `SESSION/SERVICE[@OTP]`; the session's name may hold slashes itself.

    Raises UsageError, whose message shows nothing from the first `@` on.
    """
    service, at, password = text.partition("@")
    segments = service.split("/")
    if len(segments) < 2 or not all(_is_segment(segment) for segment in segments):
        raise UsageError(
            f"--service {service[:MAX_SERVICE_ID_CHARACTERS]!r}: expected SESSION/SERVICE, of letters, digits and _-.~"
        )
    if len(service) > MAX_SERVICE_ID_CHARACTERS:
        raise UsageError(f"--service: {len(service)} characters, at most {MAX_SERVICE_ID_CHARACTERS} are possible")
    if not at:
        return service, None
    if not (password.isascii() and password.isdigit() and len(password) == ONE_TIME_PASSWORD_DIGITS):
        raise UsageError(
            f"--service {service}@…: a one-time password has {ONE_TIME_PASSWORD_DIGITS} digits; write what your "
            "authenticator shows behind the @"
        )
    return service, password


def _is_segment(text: str) -> bool:
    return bool(text) and text.isascii() and all(c.isalnum() or c in "_-.~" for c in text)


def _attester(
    values: Mapping[str, list[str]], flags: set[str], environment: Mapping[str, str]
) -> tuple[str | None, str | None, str]:
    """The attester named or None, its path if given, and the mode. Raises UsageError for what contradicts itself."""
    name, path = _given(values, "--attester"), _given(values, "--attester-path")
    mode = (environment.get("SCONE_MODE") or "auto").lower()
    if mode not in _MODES:
        raise UsageError(f"SCONE_MODE {mode!r}: expected {', '.join(_MODES)}")
    if name is not None and name not in NAMES:
        raise UsageError(f"--attester {name!r}: expected one of {', '.join(NAMES)}")
    if path is not None and name is None:
        raise UsageError("--attester-path needs --attester; name the attester whose path it is")
    if "--platform-socket" in values:
        if name not in (None, "software") or path is not None:
            raise UsageError("--platform-socket is of the software platform alone; leave it or the attester out")
        name = "software"
    if "--no-attestation" in flags:
        if "--attester" in values:
            raise UsageError("--no-attestation sends no evidence, and --attester names who makes it; leave one out")
        name = None
    if mode == "hw" and (name == "software" or "--no-attestation" in flags):
        raise UsageError("SCONE_MODE=hw asks for evidence of hardware, and the options for something else")
    return name, path, mode


def _platform_socket(environment: Mapping[str, str], exists: Callable[[str], bool]) -> str:
    named = environment.get("OSTIARY_PLATFORM_SOCKET")
    if named:
        return named
    runtime_directory = environment.get("XDG_RUNTIME_DIR")
    if runtime_directory:
        own = f"{runtime_directory}/ostiary/platform.sock"
        if exists(own):
            return own
    return SYSTEM_PLATFORM_SOCKET


def _retries(text: str | None) -> int:
    if text is None:
        return DEFAULT_RETRIES
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= MAX_RETRIES):
        raise UsageError(f"--retries {text!r}: expected a number from 0 to {MAX_RETRIES}")
    return int(text)
