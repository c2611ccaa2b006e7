"""The grammar of the command line: where options may stand, how they may be spelt, and argument files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostiary.cli.arguments import (
    HELP_COLUMNS,
    MAX_ARGUMENTS,
    MAX_FILE_NESTING,
    Command,
    Option,
    Outcome,
    UsageError,
    expand_argument_files,
)
from ostiary.cli.client_commands import COMMANDS

COMMAND = Command(
    words=("do", "it"),
    summary="Do it.",
    run=lambda _arguments, _terminal: Outcome(stdout=""),
    failing="Doing it failed",
    positionals=("A", "[B]"),
    options=(
        Option(flags=("-c", "--cas"), attribute="cas", metavar="CAS", help="h"),
        Option(flags=("--cas-key",), attribute="cas_key", metavar="KEY", help="h"),
        Option(flags=("-e",), attribute="variables", metavar="V", help="h", repeated=True),
        Option(flags=("-u", "--use-env"), attribute="use_env", help="h"),
        Option(flags=("-f", "--fail-on-warning"), attribute="fail_on_warning", help="h"),
        Option(flags=("--with",), attribute="with_self_as_creator", metavar="W", help="h", choices=("tls", "signer")),
    ),
)


@pytest.mark.parametrize("words", [
    "--cas x -u -f a b",
    "a b -uf --cas x",
    "a -fu b --cas=x",
    "-u a --fail b -cx",
    "-fucx a b",
    "--use a -f -c x -- b",
    "-uf --cas x -- a b",
])  # fmt: skip
def test_options_stand_anywhere_in_any_spelling(words: str) -> None:
    arguments = COMMAND.parse(words.split())
    assert (arguments.words, arguments.cas, arguments.use_env, arguments.fail_on_warning) == (
        ["a", "b"], "x", True, True,
    )  # fmt: skip


def test_an_exact_name_wins_over_a_prefix_and_options_repeat() -> None:
    arguments = COMMAND.parse(["a", "--cas", "x", "--cas-k", "y", "-e", "A=1", "-eB=2"])
    assert (arguments.cas, arguments.cas_key, arguments.variables) == ("x", "y", ["A=1", "B=2"])


def test_after_two_dashes_nothing_is_an_option() -> None:
    assert COMMAND.parse(["--", "-x", "--cas"]).words == ["-x", "--cas"]


@pytest.mark.parametrize(("words", "says"), [
    (["a", "--nonsense"], "unrecognized arguments: --nonsense"),
    (["a", "--ca"], "ambiguous option"),
    (["a", "--cas"], "expected one argument"),
    (["a", "--use-env=1"], "ignored explicit argument"),
    (["a", "--with", "x"], "invalid choice"),
    (["--", "a", "b", "c", "d"], "found 4 arguments beside the options, expected A [B]"),
    ([], "found 0 arguments beside the options, expected A [B]"),
    (["a", "b", "c"], "found 3 arguments beside the options, expected A [B]"),
])  # fmt: skip
def test_wrong_usage_is_told(words: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        COMMAND.parse(words)
    assert says in caught.value.message


@pytest.mark.parametrize(("words", "guesses"), [
    (["a", "--use-emv"], ("did you mean '--use-env'?",)),
    (["a", "--usenv=1", "--css", "x"], ("did you mean '--use-env'?", "did you mean '--cas'?")),
    (["a", "--hlep"], ("did you mean '--help'?",)),
    (["a", "--nonsense"], ()),
    (["a", "--cas"], ()),
    (["a", "--", "b", "c", "--use-emv"], ()),
])  # fmt: skip
def test_an_option_that_is_misspelt_is_guessed(words: list[str], guesses: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        COMMAND.parse(words)
    assert caught.value.causes == guesses


def test_argument_files_give_an_argument_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LF or CRLF; the last line end makes none, other empty lines are empty arguments; files name further ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").write_bytes(b"a b\r\n\n@two\n'c'")
    (tmp_path / "two").write_bytes(b"-e\nX=1\n")
    (tmp_path / "empty").write_bytes(b"")
    assert expand_argument_files(["x", "@one", "@empty", "y"]) == ["x", "a b", "", "-e", "X=1", "'c'", "y"]
    (tmp_path / "dashes").write_text("--\n@two\n")
    assert expand_argument_files(["@two", "--", "@one"]) == ["-e", "X=1", "--", "@one"]
    assert expand_argument_files(["@dashes", "@one"]) == ["--", "@two", "@one"]


def test_argument_files_that_cannot_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cycle").write_text("@other\n")
    (tmp_path / "other").write_text("@./cycle\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "many").write_text("x\n" * (MAX_ARGUMENTS + 1))
    for number in range(MAX_FILE_NESTING + 1):
        (tmp_path / f"deep{number}").write_text(f"@deep{number + 1}\n")
    for word, says in {
        "@": "cannot be read: No such file",
        "@missing": "'missing' cannot be read: No such file",
        "@binary": "not UTF-8",
        "@cycle": "names itself",
        "@many": f"more than {MAX_ARGUMENTS}",
        "@deep0": f"more than {MAX_FILE_NESTING} deep",
        "@a\0b": "cannot be read",
    }.items():
        with pytest.raises(UsageError) as caught:
            expand_argument_files([word])
        assert says in caught.value.message


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command.words))
def test_every_help_page_is_readable(command: Command) -> None:
    page = command.help("scone")
    assert page.startswith(command.summary)
    assert f"Usage: scone {' '.join(command.words)} [OPTIONS]" in page
    assert all(option.written in page for option in command.options)
    assert max(map(len, page.split("\n"))) <= HELP_COLUMNS + 10
    assert command.parse(["--help"]).help


def test_every_example_of_a_command_is_one_of_this_very_command() -> None:
    """Each is shown behind the program's name."""
    for command in COMMANDS:
        for example in command.examples:
            assert tuple(example.split()[: len(command.words)]) == command.words
