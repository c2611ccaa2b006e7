"""Texts of 1 MiB that are made to cost: whatever they hold, the parser answers, within its memory.

That each takes less than 2 s on an idle machine is measured by bench/language.py; here a hang is what fails.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.session.texts import HEAD, A

from ostiary.errors import InputError
from ostiary.session import parse_session
from ostiary.session.document import MAX_DOCUMENT_BYTES

MAX_MEMORY_BYTES = 256 * 1024 * 1024
HANG_SECONDS = 60

SERVICE = f"{HEAD}services:\n- name: app\n  mrenclaves: [{A}]\n"
CONTENT = f"{HEAD}images: [{{name: i, injection_files: [{{path: /f, content: '"
CLOSE = "'}]}]"


def filled(start: str, unit: str, end: str = "") -> str:
    """`unit` as often as the largest text has room for it."""
    return start + unit * ((MAX_DOCUMENT_BYTES - len(start) - len(end)) // len(unit.encode())) + end


def numbered(start: str, unit: str, count: int, end: str = "") -> str:
    return start + "".join(unit.format(number) for number in range(count)) + end


HOSTILE = {
    "nothing but directives": filled("", "%A 1\n"),
    "nothing but comments": filled(HEAD, "#\n"),
    "one scalar of many lines": filled(f"{HEAD}salt: |\n", " a\n"),
    "a folded scalar of many empty lines": filled(f"{HEAD}salt: >\n", " a\n\n"),
    "escapes": filled(f'{HEAD}salt: "', "\\x41", '"'),
    "bidi marks": filled(f'{HEAD}salt: "', "\u202e", '"'),
    "empty mappings": filled(f"{HEAD}services: [", "{},", "]"),
    "aliases": filled(f"{HEAD}services: [&a 1,", "*a,", "]"),
    "tags": filled(f"{HEAD}services: [", "!x 1,", "]"),
    "one key again and again": filled(HEAD, "a: 1\n"),
    "100,000 keys": numbered(HEAD, "k{}: 1\n", 90_000),
    "100,000 elements": f"{HEAD}services: [{'a,' * 100_000}]",
    "variables of the environment": numbered(f"{SERVICE}  environment:\n", "    A=K{}: v\n", 4900),
    "variables of the network shield": numbered(
        f"{SERVICE}  environment:\n", "    SCONE_NETWORK_SHIELD_SERVER_k{}: protected\n", 4900
    ),
    "a command of one word": filled(f"{SERVICE}  command: '", "a", "'"),
    "a command of many words": filled(f"{SERVICE}  command: '", "a ", "'"),
    "host arguments": filled(f"{SERVICE}  command: '", "@@1 ", "'"),
    "placeholders": filled(f"{HEAD}secrets: [{{name: s, kind: ascii}}]\n{CONTENT[len(HEAD) :]}", "$$SCONE::s$$", CLOSE),
    "placeholders of no secret": numbered(CONTENT, "$$SCONE::s{}$$", 60_000, CLOSE),
    "what begins like a placeholder": filled(CONTENT, "$$SCONE:", CLOSE),
    "names that are too long": filled(CONTENT, "$$SCONE::" + "a" * 512, CLOSE),
    "text that grows in the normal form": filled(f'{CONTENT[:-1]}"', "\\a", '"}]}]'),
    "a path of many parts": filled(f"{HEAD}images: [{{name: i, injection_files: [/", "a/", "]}]"),
    "hex digits": filled(f"{HEAD}secrets: [{{name: b, kind: binary, value: ", "ab", "}]"),
    "certificates that are none": filled(
        f'{HEAD}secrets: [{{name: c, kind: x509, value: "',
        "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n",
        '"}]',
    ),
    "key hashes": f"{HEAD}access_policy: {{read: [{'3s1pm8W6Be6cxvAQRbRP5YXd9YuERAr7KswN97uGtoPkRW87x2,' * 9800}]}}",
    "durations": filled(f"{HEAD}secrets: [{{name: c, kind: x509, private_key: k, valid_for: '", "1s ", "'}]"),
}


def confined(work: Callable[[], object]) -> bool:
    """Whether `work` comes to its end in a process that may take 256 MiB besides what it has."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_MEMORY_BYTES, taken + MAX_MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (HANG_SECONDS, HANG_SECONDS))
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_text_made_to_cost_is_answered_within_256_mib(text: str) -> None:
    def read() -> None:
        with suppress(InputError):
            parse_session(text)

    assert confined(read)


def test_what_takes_more_is_found() -> None:
    assert not confined(lambda: bytearray(MAX_MEMORY_BYTES * 5 // 4))
