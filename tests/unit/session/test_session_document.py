"""YAML: what is a document, what is refused, and where it stands."""

from __future__ import annotations

import time

import pytest
from tests.unit.session.texts import HEAD, mistake, mistakes

from ostiary.errors import SessionFormatError, TooLargeError
from ostiary.session import MAX_DOCUMENT_BYTES, parse_session
from ostiary.session.document import parse_document
from ostiary.session.findings import Findings
from ostiary.session.node import Mapping, Node, Path, Scalar, Sequence


def read(text: str | bytes) -> Mapping:
    findings = Findings()
    root = parse_document(text, findings)
    findings.raise_if_any()
    return root


def refused(text: str | bytes) -> SessionFormatError:
    with pytest.raises(SessionFormatError) as caught:
        read(text)
    return caught.value


def plain(node: Node) -> object:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {name: plain(value) for name, value in node.values.items()}


def test_nodes_know_line_column_and_path() -> None:
    root = read("services:\n- name: a\n  attestation: {signer: [x, 'y']}\n")
    services = root.values["services"]
    assert isinstance(services, Sequence)
    service = services.items[0]
    assert isinstance(service, Mapping)
    attestation = service.values["attestation"]
    assert isinstance(attestation, Mapping)
    signer = attestation.values["signer"]
    assert isinstance(signer, Sequence)
    last = signer.items[1]
    assert (last.line, last.column, str(last.path)) == (3, 29, "services[0].attestation.signer[1]")
    assert (attestation.keys["signer"].line, attestation.keys["signer"].column) == (3, 17)
    assert str(Path()) == ""


@pytest.mark.parametrize("spelling", ["3306", "007", "1e3", "12e45678", "0x10", "1_000", "2001-01-01", "yes", "1:30"])
def test_scalars_keep_their_source_spelling(spelling: str) -> None:
    assert plain(read(f"a: {spelling}")) == {"a": spelling}


@pytest.mark.parametrize(
    ("text", "is_null"),
    [("~", True), ("null", True), ("Null", True), ("", True), ("''", False), ('"~"', False), ("!!str null", False)],
)
def test_only_plain_spellings_are_null(text: str, is_null: bool) -> None:
    node = read(f"a: {text}").values["a"]
    assert isinstance(node, Scalar)
    assert node.is_null is is_null


def test_document_marker_byte_order_mark_comments_and_json_are_yaml() -> None:
    expected = {"a": "1", "b": ["2"]}
    for text in (
        "---\na: 1\nb: [2]\n",
        "\ufeffa: 1\nb: [2]",
        '# x\n{"a": "1", "b": ["2"]}',
        b"%YAML 1.2\n---\na: 1\nb:\n- 2\n",
    ):
        assert plain(read(text)) == expected


def test_aliases_are_expanded_with_their_own_path() -> None:
    root = read("a: &x {k: [1]}\nb: *x\n? &y c\n: &y 2\nd: *y")
    assert plain(root) == {"a": {"k": ["1"]}, "b": {"k": ["1"]}, "c": "2", "d": "2"}
    copied = root.values["b"]
    assert isinstance(copied, Mapping)
    assert (copied.line, str(copied.values["k"].path)) == (1, "b.k")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("--- ~\n", 1, "empty"),
        ("- a\n", 1, "not a mapping"),
        ("word\n", 1, "not a mapping"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: 1\n...\nb\n", 3, "second document"),
        ("a: [1\nb: 2", 2, "not YAML"),
        ("a:\n\tb: 1", 2, "not YAML"),
        ("%YAML 1.1\n---\na: 1", 2, "another YAML version"),
        ("%TAG !e! tag:example.org,2000:\n---\na: 1", 2, "%TAG"),
        ("a: *b", 1, "alias *b has no anchor"),
        ("a: &b [*b]", 1, "alias *b has no anchor"),
        ("a: 1\n? [b]\n: 2", 2, "a key is a mapping or list"),
        ("a: &l [1]\n? *l\n: 2", 1, "a key is a mapping or list"),
        ('a: 1\nb: "\\UFFFFFFFF"', 2, "not YAML"),
        ("a: 1\nb: \x07", 2, "character U+0007 is not allowed"),
        ("a: 1\nb: \x00", 2, "character U+0000 is not allowed"),
        (b"a: 1\nb: \xff", 2, "byte 0xff is not UTF-8"),
        ("a: \ud800", 0, "half a surrogate pair"),
        ("a: !" + "x" * 65, 1, "a tag longer than any known one"),
    ],
)
def test_what_is_no_document_is_refused_at_its_line(text: str | bytes, line: int, says: str) -> None:
    (finding,) = refused(text).findings
    assert finding.line == line
    assert says in finding.message


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("a: 1\na: 2", "a", "stands on line 1 already"),
        ('a: {b: 1, "b": 2}', "a.b", "stands on line 1 already"),
        ("<<: {a: 1}", "<<", "merge keys"),
        ("a: !foo 1", "a", "tag !foo has no meaning"),
        ("a: !!python/object:x 1", "a", "tag !!python/object:x has no meaning"),
        ("a: !foo [1]", "a", "tag !foo has no meaning"),
        ("a: !!seq {b: 1}", "a", "tag !!seq has no meaning"),
        ("a: !!int x", "a", "tag !!int says"),
        ("a: !akv 1", "a", "tag !akv has no meaning"),
        ('a: "x\\0y"', "a", "NUL"),
        ('a: "\\ud800"', "a", "half a surrogate pair"),
    ],
)
def test_mistakes_that_leave_the_structure_readable_are_gathered(text: str, path: str, says: str) -> None:
    found = refused(f"{text}\nz: 1\nz: 2").findings
    assert [finding.path for finding in found] == [path, "z"]
    assert says in found[0].message


def test_mistakes_before_the_text_breaks_off_are_reported_too() -> None:
    assert [finding.path for finding in refused("a: 1\na: 2\nb: [").findings] == ["a", ""]


def test_core_tags_and_the_languages_own_in_their_place_are_accepted() -> None:
    text = "a: !!str 1\nb: !!int 1\nc: !!null ''\nd: !!map {}\ne: !!seq []\nf: ! x\nsecret_config: {store_in: !cas }"
    assert plain(read(text)) == {
        "a": "1",
        "b": "1",
        "c": "",
        "d": {},
        "e": [],
        "f": "x",
        "secret_config": {"store_in": ""},
    }


def test_a_text_of_one_byte_too_many_is_too_large() -> None:
    fits = "a: " + "x" * (MAX_DOCUMENT_BYTES - 3)
    assert plain(read(fits)) == {"a": fits[3:]}
    for text in (fits + "x", (fits + "x").encode()):
        with pytest.raises(TooLargeError, match="1048577 bytes, at most 1048576"):
            parse_session(text)


def test_64_levels_are_read_and_65_refused() -> None:
    read("a: " + "[" * 63 + "]" * 63)
    assert "nested over 64 levels" in refused("a: " + "[" * 64 + "]" * 64).findings[0].message
    deep = "a: &x " + "[" * 40 + "]" * 40
    assert "nested over 64 levels" in refused(f"{deep}\nb: " + "[" * 30 + "*x" + "]" * 30).findings[0].message


def test_10000_nodes_are_read_and_one_more_refused() -> None:
    read("a: [" + "1," * 9_997 + "]")
    assert "over 10000 nodes" in refused("a: [" + "1," * 9_998 + "]").findings[0].message


def test_aliases_cannot_make_a_small_text_large() -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "over 10000 nodes" in refused(laughs).findings[0].message
    large = "a: &x " + "y" * 500_000 + "\nb: [" + "*x," * 5_000 + "]"
    assert "over 1048576 bytes after alias expansion" in refused(large).findings[0].message


@pytest.mark.parametrize("text", ["[" * 1_000_000, "{a: " * 200_000, "- " * 500_000, "!" * 1_000_000, "? " * 500_000])
def test_hostile_nesting_is_refused_before_it_costs_much(text: str) -> None:
    """Without the bounds these take from 8 seconds to minutes."""
    start = time.process_time()
    refused(text)
    assert time.process_time() - start < 5


def test_paths_and_quotes_in_messages_are_short_and_visible() -> None:
    message = refused(f"? {'k' * 5000}\n: !x 1").findings[0]
    assert len(message.path) < 120
    assert "\u202e" not in str(refused('"a\u202eb": !x 1').findings[0])
    assert "\\u202e" in refused('"a\u202eb": !x 1').findings[0].path


def test_at_most_1000_mistakes_are_shown() -> None:
    found = mistakes(HEAD + "".join(f"k{number}: 1\n" for number in range(1_500)))
    assert len(found) == 1_001
    assert "500 more mistakes" in found[-1].message


def test_document_mistakes_are_reported_beside_those_of_the_language() -> None:
    found = mistakes(HEAD + "security: {}\nsecurity: {}\nsecret: []\n")
    assert [finding.path for finding in found] == ["security", "secret"]
    assert "expected 32 hex digits" in mistake(HEAD + "salt: 1\n", "salt")
