"""`ostiary run` from its arguments to exec, and what is said when it does not come to that."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import replace

from ostiary.attester import Program, resolve_program
from ostiary.errors import ConfigurationError, DeniedError, InputError, OstiaryError, OutsideError
from ostiary.launcher.access_token import VARIABLE
from ostiary.launcher.attest import attest
from ostiary.launcher.attesters import choose_attester, list_attesters
from ostiary.launcher.configuration import Configuration
from ostiary.launcher.connection import connect
from ostiary.launcher.execute import (
    DEFAULT_SEARCH_PATH,
    ProgramNotExecutableError,
    ProgramNotFoundError,
    build_argv,
    build_environment,
    enter_directory,
    execute,
    find_program,
)
from ostiary.launcher.host import host_environment
from ostiary.launcher.inject import inject
from ostiary.launcher.measured import Snapshot, require_same_program, require_unchanged, snapshot
from ostiary.launcher.options import HELP, Listing, Options, UsageError, parse_options
from ostiary.launcher.protected import require_no_protected_files
from ostiary.launcher.templates import render_templates

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

# The first that fits; documented in options.HELP. Numbers as in <sysexits.h> and POSIX shells.
_EXIT_CODES: tuple[tuple[type[OstiaryError], int], ...] = (
    (UsageError, 64),
    (ProgramNotFoundError, 127),
    (ProgramNotExecutableError, 126),
    (DeniedError, 77),
    (OutsideError, 69),
    (InputError, 76),
    (ConfigurationError, 78),
)
_DENIAL_ID = re.compile("[0-9a-f]{16}")
_INTERNAL_ERROR = 70


def main(arguments: list[str]) -> int:
    """Run the command; `arguments` stand after `ostiary run`. Returns an exit code if no program was started."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return _run(arguments)
    except OstiaryError as error:
        _tell(*_sentences(error))
        return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), _INTERNAL_ERROR)
    except Exception as error:  # its text may hold anything: only its kind and place are told
        _tell(f"internal error, {type(error).__name__} at {_place(error)}; please report it")
        return _INTERNAL_ERROR


def _run(arguments: list[str]) -> int:
    host = host_environment()
    options = parse_options(arguments, {os.fsdecode(n): os.fsdecode(v) for n, v in host.items()}, os.path.exists)
    if options is None:
        sys.stdout.write(HELP)
        return 0
    if isinstance(options, Listing):
        sys.stdout.write(list_attesters(options))
        return 0
    program = _resolve(options, host)
    before = snapshot(program) if program else {}
    configuration = _configure(options, program, access_token=host.get(VARIABLE.encode()) or None)
    return _start(configuration, host, options, program, before)


def _resolve(options: Options, host: Mapping[bytes, bytes]) -> Program | None:
    """The program that the command names, or None if that is the session's to say."""
    if not options.command:
        if options.measure:
            raise UsageError("--measure needs a program to measure it with; add `-- command`")
        return None
    search_path = host.get(b"PATH", DEFAULT_SEARCH_PATH)
    find_program(os.fsencode(options.command[0]), search_path)
    try:
        directory = os.getcwd()
    except OSError as error:
        raise ConfigurationError("the working directory cannot be read", error.strerror or str(error)) from None
    return resolve_program(options.command, extra_files=options.measure, path=os.fsdecode(search_path), cwd=directory)


def _configure(options: Options, program: Program | None, *, access_token: bytes | None) -> Configuration:
    attester = choose_attester(options) if options.attestation else None
    connection = connect(options.host, options.port, cas_ca=options.cas_ca, retries=options.retries)
    try:
        configuration = attest(
            connection,
            options.service,
            (lambda report_data: attester.attest(report_data, program)) if attester else None,
            one_time_password=options.one_time_password,
            access_token=access_token,
        )
        require_no_protected_files(configuration, options.service)
        if configuration.file_templates and options.cas_ca is None and access_token is None:
            raise ConfigurationError(
                "the CAS asks for files of this machine, and nothing says that it is the right CAS",
                f"the first of them: {configuration.file_templates[0].path}",
                "give --cas-ca FILE with the certificate of the CAS, the session an access token, or the files content",
            )
        files = render_templates(connection, options.service, configuration)
        return replace(configuration, injection_files=files)
    finally:
        connection.close()


def _start(
    configuration: Configuration,
    host: Mapping[bytes, bytes],
    options: Options,
    program: Program | None,
    before: Snapshot,
) -> NoReturn:
    """Become the program. The order matters: everything is looked at in the view that the program will have."""
    host_arguments = [os.fsencode(word) for word in options.command[1:]]
    argv = build_argv(configuration, host_arguments, os.fsencode(program.executable) if program else None)
    environment = build_environment(configuration, host)
    injected = frozenset(file.path for file in configuration.injection_files)
    templates = frozenset(template.path for template in configuration.file_templates)
    if program is not None:
        # What was rendered must be what was measured, as far as it was; once injected, the files hide it.
        measured = {path: identity for path, identity in before.items() if path in templates}
        require_unchanged(program, measured, injected=frozenset())
    inject(configuration.injection_files)
    enter_directory(configuration.pwd)
    search_path = environment.get(b"PATH", DEFAULT_SEARCH_PATH)
    if program is None:
        path = find_program(argv[0], search_path)
    else:
        require_unchanged(program, before, injected=injected)
        # A file made of the host's template is the host's word, not the CAS's: as a script it has to be measured.
        require_same_program(program, argv, search_path=search_path, injected=injected - templates)
        path = os.fsencode(program.executable)
    execute(path, argv, environment)


def _sentences(error: OstiaryError) -> tuple[str, ...]:
    if isinstance(error, DeniedError) and error.denial:
        return (*error.chain, f"denial id {error.denial}: {_who_knows(error.denial)}")
    return error.chain


def _who_knows(denial: str) -> str:
    """What to do with the id of a denial. One of another form is never put into a command that people copy."""
    if _DENIAL_ID.fullmatch(denial):
        return f"`ostiary explain {denial}` says why to those who may read the session"
    return "ask those who may read the session"


def _tell(message: str, *causes: str) -> None:
    """One line for the failure and one for each cause on stderr. If nobody listens there, the exit code says it."""
    text = "".join((f"ostiary run: {message}\n", *(f"  {cause}\n" for cause in causes)))
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return


def _place(error: BaseException) -> str:
    """File name and line of the innermost frame."""
    trace, place = error.__traceback__, "an unknown place"
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
