"""Every row of the session language's feature table, is named by a test."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = 210


def test_every_row_is_named_by_a_test() -> None:
    """In the name or the docstring of a function, or in a row of its table."""
    texts = "".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    named = {int(number) for number in re.findall(r"\bF(\d{3})\b", texts)}
    assert set(range(1, ROWS + 1)) - named == set()
