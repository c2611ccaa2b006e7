"""Configuration variables: what they stand for, and what is refused rather than guessed."""

from __future__ import annotations

import pytest

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.format import public_text
from ostiary.secret.fragment import MAX_FRAGMENT_DEPTH, MAX_FRAGMENT_NODES, expand, fragment
from ostiary.secret.render import render
from ostiary.secret.value import AsciiValue, BinaryValue, FragmentValue, Released
from ostiary.session.normal import JsonValue
from ostiary.session.placeholder import Placeholder, Template, parse_template

SIGNERS: JsonValue = [{"mrsigner": "aa", "isvprodid": 1}, {"mrsigner": "bb", "isvprodid": 2}]
VALUES: dict[str, Released] = {
    "signers": FragmentValue(value=SIGNERS),
    "one": FragmentValue(value={"mrenclave": ["cc"]}),
    "nested": FragmentValue(value=[["x"], "y"]),
    "empty": FragmentValue(value=[]),
    "null": FragmentValue(value=None),
    "flag": FragmentValue(value=True),
    "number": FragmentValue(value=12),
    "word": AsciiValue(text="hunter2"),
    "otp": BinaryValue(data=b"hunter2"),
    "inside": FragmentValue(value={"a": ["b", "hunter2 $$SCONE::word$$"]}),
    "in_key": FragmentValue(value={"$$SCONE::word$$": 1}),
    "in_text": AsciiValue(text="$$SCONE::word$$"),
}


def deep(levels: int) -> JsonValue:
    value: JsonValue = "x"
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("signers", "", SIGNERS),
        ("one", "", {"mrenclave": ["cc"]}),
        ("empty", "", []),
        ("null", "", None),
        ("flag", "", True),
        ("number", "", 12),
        ("word", "", "hunter2"),
        ("otp", "base32nopad", "NB2W45DFOIZA"),
        ("otp.hex", "", "68756e74657232"),
    ],
)
def test_a_variable_stands_for_the_fragment_or_the_text_of_another_secret(
    name: str, form: str, expected: JsonValue
) -> None:
    assert fragment(VALUES, Placeholder(name=name, format=form)) == expected


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("lost", "", "there is no secret 'lost'; declare it in secrets"),
        ("one", "hex", "a config-fragment has no formats; write $$SCONE::one$$"),
        ("otp", "", "this place is for text, and this format is raw bytes; use a format such as base64 or pem"),
        ("otp", "bin", "this place is for text, and this format is raw bytes"),
        ("word", "hex", "secret 'word', ascii, has no format 'hex'"),
        ("inside", "", "its value holds a variable, and variables in variables do not work"),
        ("in_key", "", "its value holds a variable, and variables in variables do not work"),
        ("in_text", "", "its value holds a variable, and variables in variables do not work"),
    ],
)
def test_what_cannot_stand_in_configuration_is_refused(name: str, form: str, message: str) -> None:
    """Feature F138: a variable in a variable is refused when it is evaluated."""
    with pytest.raises(ReleaseRefusedError) as caught:
        fragment(VALUES, Placeholder(name=name, format=form))
    assert caught.value.message.startswith(f"placeholder $$SCONE::{name}")
    assert message in caught.value.message
    assert "hunter2" not in caught.value.message


def test_an_encoding_on_a_fragment_is_refused() -> None:
    with pytest.raises(ReleaseRefusedError, match="a config-fragment has no formats"):
        fragment(VALUES, Placeholder(name="one", encoding="escape(json)"))


def test_bounds_on_nodes_and_levels() -> None:
    widest: JsonValue = ["x"] * (MAX_FRAGMENT_NODES - 1)
    assert fragment({"f": FragmentValue(value=widest)}, Placeholder(name="f")) == widest
    assert fragment({"f": FragmentValue(value=deep(MAX_FRAGMENT_DEPTH))}, Placeholder(name="f"))
    for value, message in (
        (["x"] * MAX_FRAGMENT_NODES, "its value has over 10000 nodes"),
        (deep(MAX_FRAGMENT_DEPTH + 1), "its value is nested over 64 levels"),
        (deep(5000), "its value is nested over 64 levels"),
    ):
        with pytest.raises(ReleaseRefusedError, match=message):
            fragment({"f": FragmentValue(value=value)}, Placeholder(name="f"))


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ("plain", "plain"),
        (7, 7),
        (None, None),
        (False, False),
        ("$$SCONE::word$$", "hunter2"),
        ({"a": "$$SCONE::one$$", "b": "c"}, {"a": {"mrenclave": ["cc"]}, "b": "c"}),
        (["a", "$$SCONE::word$$"], ["a", "hunter2"]),
        (["$$SCONE::signers$$"], SIGNERS),
        ([{"x": 1}, "$$SCONE::signers$$", "$$SCONE::one$$"], [{"x": 1}, *SIGNERS, {"mrenclave": ["cc"]}]),  # type: ignore[misc]
        (["$$SCONE::nested$$"], [["x"], "y"]),
        (["$$SCONE::empty$$", "a"], ["a"]),
        ([["$$SCONE::nested$$"]], [[["x"], "y"]]),
        ({"$$SCONE::word$$": 1}, {"$$SCONE::word$$": 1}),
    ],
)
def test_lists_are_spliced_into_lists_and_nothing_else(configuration: JsonValue, expected: JsonValue) -> None:
    assert expand(configuration, VALUES) == expected


@pytest.mark.parametrize(
    "text", ["x$$SCONE::word$$", "$$SCONE::word$$ ", "$$SCONE::word$$$$SCONE::word$$", "$$SCONE:a"]
)
def test_a_variable_that_is_part_of_a_value_is_refused(text: str) -> None:
    """Feature F137: in configuration."""
    with pytest.raises(
        ReleaseRefusedError, match=r"^a variable is only a part of a value in the configuration; let it"
    ):
        expand({"a": [text]}, VALUES)


def test_a_fragment_in_an_argument_is_refused() -> None:
    """Feature F124: arguments, environment and files take text."""
    with pytest.raises(ReleaseRefusedError) as caught:
        render(parse_template("--x=$$SCONE::one$$"), VALUES)
    assert caught.value.message == (
        "placeholder $$SCONE::one$$: a config-fragment stands for a part of the session, not for text; use it in "
        "attestation, security or access_policy, or use a secret of kind ascii"
    )
    with pytest.raises(ReleaseRefusedError, match="a config-fragment stands for a part of the session"):
        render(Template(parts=(Placeholder(name="one", encoding="escape(json)"),)), VALUES)


def test_a_public_fragment_is_shown_as_json() -> None:
    assert public_text(FragmentValue(value={"a": [1, True, None, "\u00e9"]})) == '{"a":[1,true,null,"\u00e9"]}'
