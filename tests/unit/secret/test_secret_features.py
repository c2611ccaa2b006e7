"""Every feature of the language that concerns secrets and placeholders is named by a test of this package."""

from __future__ import annotations

import re
from pathlib import Path

SECRETS_AND_PLACEHOLDERS = range(93, 139)
# What the session parser alone decides: san beside dns, the ways to prove oneself to Azure.
DECIDED_BY_THE_PARSER = {114, 123}


def test_every_feature_is_named_by_a_test() -> None:
    texts = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    named = {int(number) for number in re.findall(r"\bF(\d{3})\b", texts)}
    assert set(SECRETS_AND_PLACEHOLDERS) - DECIDED_BY_THE_PARSER <= named
