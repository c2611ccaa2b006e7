"""Cutting a command into words."""

from __future__ import annotations

import re

import pytest

from ostiary.session.command import MAX_ARGUMENTS, split_at_blanks, split_with_quotes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (" \t\r\n", ()),
        ("a  b\tc\nd", ("a", "b", "c", "d")),
        ("""mysql -e "show databases;" 'a b'c --x="1 2\"""", ("mysql", "-e", "show databases;", "a bc", "--x=1 2")),
        ("a '' \"\" b", ("a", "", "", "b")),
        (r"a\ b \"c \\d", ("a b", '"c', "\\d")),
        (r'"a\"b\\c\d"', (r'a"b\c\d',)),
        (r"'a\'", ("a\\",)),
        ("a #b", ("a", "#b")),
        ("$HOME `x` $(y) *", ("$HOME", "`x`", "$(y)", "*")),
    ],
)
def test_quotes_keep_blanks_inside_an_argument(text: str, words: tuple[str, ...]) -> None:
    assert split_with_quotes(text) == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sh -c 'echo", "the quote ' is not closed, at character 7"),
        ('a"b', 'the quote " is not closed, at character 2'),
        ('"a\\"', 'the quote " is not closed, at character 1'),
        ("a\\", "a backslash at the end, at character 2"),
        ("a " * (MAX_ARGUMENTS + 1) + "a", "more than 10000 arguments"),
    ],
)
def test_what_a_shell_would_not_finish_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        split_with_quotes(text)


def test_language_0_2_has_no_quotes() -> None:
    assert split_at_blanks("a \"b c\" 'd\\ e'\n") == ("a", '"b', 'c"', "'d\\", "e'")
    with pytest.raises(ValueError, match="more than 10000 arguments"):
        split_at_blanks("a " * (MAX_ARGUMENTS + 1))
