"""A command written as one text, cut into arguments. Source: session language, "Command"."""

from __future__ import annotations

import re

MAX_ARGUMENTS = 10_000

_BLANKS = " \t\r\n"
_PIECE = re.compile(
    r"""
      (?P<bare>   [^ \t\r\n'"\\]+ )
    | (?P<single> '[^']*' )
    | (?P<double> "[^"\\]*(?:\\.[^"\\]*)*" )
    | (?P<escape> \\. )
    | (?P<blank>  [ \t\r\n]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED_IN_QUOTES = re.compile(r'\\(["\\])')


def split_at_blanks(text: str) -> tuple[str, ...]:
    """The words of a command in language 0.2 and older: quotes have no meaning.

    Raises ValueError with one sentence: over MAX_ARGUMENTS words.
    """
    words = tuple(re.findall(rf"[^{_BLANKS}]+", text))
    _check_count(len(words))
    return words


def split_with_quotes(text: str) -> tuple[str, ...]:
    """The words of a command as a POSIX shell cuts them, without expansions and comments; `''` is an empty word.

    Equal to `shlex.split(text)`. Raises ValueError with one sentence: over MAX_ARGUMENTS words, or the character,
    from 1, where a quote begins that is not closed, or a trailing backslash stands.
    """
    words: list[str] = []
    word: list[str] | None = None
    end = 0
    while end < len(text):
        piece = _PIECE.match(text, end)
        if piece is None:
            kind = "a backslash at the end" if text[end] == "\\" else f"the quote {text[end]} is not closed"
            raise ValueError(f"{kind}, at character {end + 1} of the command")
        end = piece.end()
        if piece.lastgroup == "blank":
            if word is not None:
                words.append("".join(word))
                _check_count(len(words))
            word = None
        else:
            word = word or []
            word.append(_unquote(piece))
    return tuple(words) if word is None else (*words, "".join(word))


def _check_count(words: int) -> None:
    """Raise ValueError with one sentence if a command has too many words."""
    if words > MAX_ARGUMENTS:
        raise ValueError(f"the command has more than {MAX_ARGUMENTS} arguments; pass them in a file")


def _unquote(piece: re.Match[str]) -> str:
    match piece.lastgroup:
        case "single":
            return piece[0][1:-1]
        case "double":
            return _ESCAPED_IN_QUOTES.sub(r"\1", piece[0][1:-1])
        case "escape":
            return piece[0][1]
    return piece[0]
