"""Variables of templates: which text is one, what a value may do to the document, and where mistakes are."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from ostiary.cli.session.template import is_variable_name, rename, substitute
from ostiary.errors import InputError, SessionFormatError, TooLargeError

VALUES = {
    "X": "one", "OTHER_CAS": "cas2", "NS": "a/b", "EMPTY": "", "TILDE": "~", "NULL": "null", "TRUE": "true",
    "NUMBER": "007", "TWO_LINES": "a\nb", "KEY": "x\nevil: true", "COLON": "a: b", "HASH": "a #b", "DOLLAR": "$X",
    "QUOTES": "'\"", "BACKSLASH": "a\\b", "DOTS": "...", "BRACE": "{a: 1}", "LINE": "a\u2028b\x85c\td", "NEG": "-1",
}  # fmt: skip


def load(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


def value(template: str) -> object:
    """What a template gives as the value of `a`."""
    loaded = load(substitute(f"a: {template}\nb: 1\n", VALUES.get))
    assert isinstance(loaded, dict)
    assert list(loaded) == ["a", "b"]
    return loaded["a"]


@pytest.mark.parametrize(("template", "expected"), [
    ("$X", "one"),
    ("${X}", "one"),
    ("x${X}x", "xonex"),
    ("$X-$X", "one-one"),
    ("$OTHER_CAS,session=A", "cas2,session=A"),
    ("$NS/c", "a/b/c"),
    ("'$X'", "one"),
    ('"$X"', "one"),
    ("[$X, '$NS']", ["one", "a/b"]),
    ("{$X: $X}", {"$X": "one"}),
    ("\\$X", "$X"),
    ("\\$\\$SCONE::X\\$\\$", "$$SCONE::X$$"),
    ("$$SCONE::X$$", "$$SCONE::X$$"),
    ("$$X", "$$X"),
    ("$$$X", "$$one"),
    ("$$SCONE::$X$$", "$$SCONE::one$$"),
    ("a $ b $1 ${1} ${X $- c$", "a $ b $1 ${1} ${X $- c$"),
    ("'\\@\\@X'", "\\@\\@X"),
    ("'@@1'", "@@1"),
    ("$DOLLAR", "$X"),
    ("!!str $X", "one"),
])  # fmt: skip
def test_this_is_a_variable_and_that_is_none(template: str, expected: object) -> None:
    assert value(template) == expected


@pytest.mark.parametrize("name", ["TWO_LINES", "KEY", "COLON", "HASH", "DOLLAR", "QUOTES", "BACKSLASH", "DOTS", "BRACE",
                                  "EMPTY", "NULL", "LINE", "NS"])  # fmt: skip
@pytest.mark.parametrize("template", ["${}", "'${}'", "[x, ${}]", "|\n  ${}\n  x", "&anchor ${}"])
def test_a_value_never_adds_structure(name: str, template: str) -> None:
    found = value(template.replace("{}", name))
    text = found[1] if isinstance(found, list) else found
    assert text == (f"{VALUES[name]}\nx\n" if "|" in template else VALUES[name])


def test_one_variable_with_a_tilde_is_null_and_nothing_else_is() -> None:
    assert value("$TILDE") is None
    assert value("'$TILDE'") is None
    assert value("x$TILDE") == "x~"
    assert value("$NULL") == "null"


def test_the_field_decides_the_type_and_not_the_quotes_of_the_template() -> None:
    assert substitute('a: "$NUMBER"', VALUES.get) == "a: 007"
    assert substitute("a: '$TRUE'", VALUES.get) == "a: true"
    assert substitute("a: $NEG", VALUES.get) == 'a: "-1"'


def test_what_is_not_replaced_stays_byte_for_byte() -> None:
    text = "# $NOT a variable\n\"a\" :   '$$x' # $NOT\nb: |\n   $$y\n\n\nc: {d: [ 1,2 ]}   \n"
    assert substitute(text, VALUES.get) == text
    assert substitute("# $NOT\na: 'x' # c\nb:   $X   # d", VALUES.get) == "# $NOT\na: 'x' # c\nb:   one   # d"


def test_lines_stay_where_they_were() -> None:
    text = "a: |\n  $X\n  two\n\nb: >-\n  $X\n\n  x\nc: multi\n  $X\n\nd: '$X\n\n  e'\nf: 1\n"
    replaced = substitute(text, VALUES.get)
    assert replaced.split("\n").index("f: 1") == text.split("\n").index("f: 1")
    assert load(replaced) == {"a": "one\ntwo\n", "b": "one\nx", "c": "multi one", "d": "one\ne", "f": 1}


def test_windows_line_ends_are_fine() -> None:
    assert substitute("a: b\r\nc: $X\r\nd: $X\r\n", VALUES.get) == "a: b\r\nc: one\r\nd: one\r\n"


def test_an_alias_gives_the_replaced_value() -> None:
    assert load(substitute("a: &x $X\nb: *x\nc: [*x]\n", VALUES.get)) == {"a": "one", "b": "one", "c": ["one"]}


def test_all_missing_variables_are_reported_at_once_with_their_places() -> None:
    text = (
        "version: '0.3'\nunused: 1\nname: $SESSION\n# $COMMENT\n"
        "x:\n  - |\n    a $A\n    b ${B} $X\n  - y: [1, '$C $X$D']\ne: \"\\x24E $F\"\n"
    )
    with pytest.raises(SessionFormatError, match="-e NAME=VALUE") as caught:
        substitute(text, VALUES.get)
    assert caught.value.causes == (
        "name: Value for variable $SESSION is missing at line 3 column 7",
        "x[0]: Value for variable $A is missing at line 7 column 7",
        "x[0]: Value for variable $B is missing at line 8 column 7",
        "x[1].y[1]: Value for variable $C is missing at line 9 column 13",
        "x[1].y[1]: Value for variable $D is missing at line 9 column 18",
        # The source hides a dollar sign behind an escape, so the places in it are those of the whole text.
        "e: Value for variable $E is missing at line 10 column 4",
        "e: Value for variable $F is missing at line 10 column 4",
    )


@pytest.mark.parametrize(("text", "says"), [
    ("a: [$X", "not YAML"),
    ("- $X", "not a mapping"),
    ('a: "\\$X"', "not YAML"),
    ("a: $X\n---\nb: 1", "second document"),
    ("{[$X]: 1}", "a key is a mapping or list"),
    ("a: " + "[" * 100 + "$X", "nested over 64"),
    ("$X", "not a mapping"),
])  # fmt: skip
def test_what_is_no_session_document_is_refused_before_anything_is_replaced(text: str, says: str) -> None:
    with pytest.raises(SessionFormatError, match=says):
        substitute(text, VALUES.get)


def test_a_document_over_the_bound_is_refused() -> None:
    with pytest.raises(TooLargeError):
        substitute("a: $X " + "x" * 1024 * 1024, VALUES.get)


def test_rename_replaces_the_name_and_nothing_else() -> None:
    text = "# c\nname: old # d\nservices:\n  - name: app\n"
    assert rename(text, "new") == "# c\nname: new # d\nservices:\n  - name: app\n"
    assert rename('{"name": "old"}', "a: b") == '{"name": "a: b"}'


@pytest.mark.parametrize("text", ["version: '0.3'\n", "name:\nx: 1\n", "x: {name: a}\n"])
def test_rename_without_a_name_to_replace_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="add the line name: NAME"):
        rename(text, "new")


def test_names_of_variables() -> None:
    assert is_variable_name("A_1")
    assert not any(map(is_variable_name, ("", "1A", "A-B", "A.B", "Ä")))
