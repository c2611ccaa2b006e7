"""Laws of templates and argument files, over anything that may be written."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostiary.cli.arguments import expand_argument_files
from ostiary.cli.session.template import substitute
from ostiary.errors import InputError
from ostiary.session.document import parse_document
from ostiary.session.findings import Findings
from ostiary.session.node import Mapping, Node, Sequence
from ostiary.session.yaml_text import write_yaml

# Controls and what YAML calls a line end are not in a text that a person writes; values may hold them.
TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="$\\\u2028\u2029\ufeff"), max_size=12
)
VALUES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
PIECES = st.one_of(TEXT, st.sampled_from(["$A", "${A}", "$B_1", "${B_1}", "$$", "\\$", "\n"]))
TEMPLATES = st.lists(PIECES, min_size=1, max_size=6).map(" ".join)
DOCUMENTS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.recursive(
        TEMPLATES, lambda inner: st.lists(inner, min_size=1, max_size=3) | st.fixed_dictionaries({"k": inner})
    ),
    min_size=1,
    max_size=4,
)


def load(text: str) -> object:
    """The document with every scalar as it is spelt, but for a plain `~`: what the session language reads."""
    return _value(parse_document(text, Findings()))


def _value(node: Node) -> object:
    if isinstance(node, Mapping):
        return {key: _value(member) for key, member in node.values.items()}
    if isinstance(node, Sequence):
        return [_value(element) for element in node.items]
    return None if node.is_null else node.text


def expected(value: object, values: dict[str, str]) -> object:
    """What substitution means, said another way: longest names first, pairs and escapes taken out before."""
    if isinstance(value, dict):
        return {key: expected(member, values) for key, member in value.items()}
    if isinstance(value, list):
        return [expected(element, values) for element in value]
    assert isinstance(value, str)
    text, out = value, ""
    while text:
        if text.startswith("\\$"):
            out, text = f"{out}$", text[2:]
        elif text.startswith("$$"):
            out, text = f"{out}$$", text[2:]
        else:
            name = next((name for name in ("${B_1}", "${A}", "$B_1", "$A") if text.startswith(name)), None)
            if name is None:
                out, text = out + text[0], text[1:]
            else:
                out, text = out + values[name.strip("${}")], text[len(name) :]
    whole = value in ("$A", "${A}", "$B_1", "${B_1}")
    return None if whole and out == "~" else out


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS, VALUES, VALUES)
def test_substitution_changes_values_and_nothing_else(document: dict[str, object], a: str, b: str) -> None:
    text = write_yaml(document)  # type: ignore[arg-type]
    values = {"A": a, "B_1": b}
    replaced = substitute(text, values.get)
    assert load(replaced) == expected(document, values)
    assert replaced.count("\n") == text.count("\n")


@given(st.text(max_size=200))
def test_any_text_is_replaced_or_refused_as_input(text: str) -> None:
    with contextlib.suppress(InputError):
        substitute(text, {"A": "x"}.get)


@given(
    st.lists(st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"]), max_size=10), max_size=8)
)
def test_an_argument_file_gives_back_its_lines(lines: list[str]) -> None:
    """Those that name no further file."""
    lines = [line.lstrip("@") for line in lines]
    with TemporaryDirectory() as directory:
        file = Path(directory) / "args"
        file.write_text("".join(f"{line}\n" for line in lines), newline="")
        assert expand_argument_files([f"@{file}", "last"]) == [*lines, "last"]
