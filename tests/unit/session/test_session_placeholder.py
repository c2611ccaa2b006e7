"""Placeholders in a text."""

from __future__ import annotations

import pytest

from ostiary.session import Placeholder, parse_template


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("no $$ here", ("no $$ here",)),
        ("$$SCONE::a$$", (Placeholder(name="a"),)),
        ("x$$SCONE::a-b_c.d~1$$y", ("x", Placeholder(name="a-b_c.d~1"), "y")),
        ("$$SCONE::a:pkcs8:pem$$", (Placeholder(name="a", format="pkcs8:pem"),)),
        ("$$SCONE::a|escape(json)$$", (Placeholder(name="a", encoding="escape(json)"),)),
        ("$$SCONE::a:hex|escape(json)$$", (Placeholder(name="a", format="hex", encoding="escape(json)"),)),
        ("$$SCONE::a:pem$$$$SCONE::b$$", (Placeholder(name="a", format="pem"), Placeholder(name="b"))),
        ("$$$SCONE::a$$$", ("$", Placeholder(name="a"), "$")),
        ("$$SCONE::a b$$SCONE::c$$", ("$$SCONE::a b", Placeholder(name="c"))),
    ],
)
def test_a_text_is_cut_at_its_placeholders_from_the_left(text: str, parts: tuple[str | Placeholder, ...]) -> None:
    template = parse_template(text)
    assert template.parts == parts
    assert str(template) == text


@pytest.mark.parametrize(
    "text",
    [
        "$$SCONE:a$$",
        "$$SCONE::a",
        "$$SCONE::a$",
        "$$SCONE::$$",
        "$$SCONE::a b$$",
        "$$SCONE::ä$$",
        "$$SCONE::a:$$",
        "$$SCONE::a|$$",
        "$$SCONE::a|x|y$$",
        "$$SCONE::" + "a" * 513 + "$$",
    ],
)
def test_what_begins_like_a_placeholder_and_is_none_stays_text_and_is_malformed(text: str) -> None:
    template = parse_template(text)
    assert template.placeholders == ()
    assert template.has_malformed
    assert str(template) == text


def test_a_shells_backslashes_are_noticed() -> None:
    assert parse_template(r"\$\$SCONE::a:crt\$\$").has_shell_escape
    assert parse_template(r"\$$SCONE::a:crt").has_shell_escape
    assert not parse_template("$$SCONE::a:crt$$").has_shell_escape
    assert not parse_template("$$SCONE::a:crt$$").has_malformed
