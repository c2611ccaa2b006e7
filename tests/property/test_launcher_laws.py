"""Laws of what the launcher reads: no input raises anything undocumented."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import InputError
from ostiary.launcher.configuration import Configuration, HostArgument, parse_configuration
from ostiary.launcher.options import Options, UsageError, parse_options

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
BASE64 = st.sampled_from(["", "YQ==", "AA==", "x", "YWJj"])
WORD = st.fixed_dictionaries({"value": BASE64}) | st.fixed_dictionaries({"host_argument": st.integers(-1, 4)}) | JSON
VARIABLE = (
    st.fixed_dictionaries({"value": BASE64}) | st.fixed_dictionaries({"host_variable": st.text(max_size=3)}) | JSON
)
PATH = st.text("/ab.\0", max_size=6)
FILE = st.fixed_dictionaries({"path": PATH, "permission": st.integers(-1, 600) | JSON, "content": BASE64}) | JSON
TEMPLATE = st.fixed_dictionaries({"path": PATH, "permission": st.integers(-1, 600) | JSON}) | JSON
NEARLY = st.fixed_dictionaries(
    {
        "session_hash": st.just("00" * 32) | JSON,
        "argv": st.lists(WORD, max_size=3) | JSON,
        "environment": st.dictionaries(st.text(max_size=3), VARIABLE, max_size=3) | JSON,
        "pwd": PATH | JSON,
        "injection_files": st.lists(FILE, max_size=3) | JSON,
        "file_templates": st.lists(TEMPLATE, max_size=3) | JSON,
    }
)


@given(st.binary() | NEARLY.map(lambda value: json.dumps(value).encode()))
def test_a_configuration_is_refused_by_input_error_or_keeps_its_promises(body: bytes) -> None:
    with suppress(InputError):
        configuration = parse_configuration(body)
        assert isinstance(configuration, Configuration)
        assert not any(b"\0" in word for word in configuration.argv if isinstance(word, bytes))
        assert all(word.position >= 1 for word in configuration.argv if isinstance(word, HostArgument))
        assert all(name and b"=" not in name and b"\0" not in name for name, _ in configuration.environment)
        assert configuration.pwd.startswith("/")
        paths = [file.path for file in configuration.injection_files]
        paths += [template.path for template in configuration.file_templates]
        assert len(paths) == len(set(paths))
        assert not any(part in ("", ".", "..") for path in paths for part in path.split("/")[1:])


WORDS = ["--cas", "h:1", "--service", "a/b", "--retries", "3", "--measure=x", "--no-attestation", "--", "-x", "@"]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=10))
def test_arguments_are_a_usage_error_or_understood(arguments: list[str]) -> None:
    with suppress(UsageError):
        options = parse_options(arguments, {}, lambda _: False)
        assert options is None or (isinstance(options, Options) and 1 <= options.port <= 65535)
