from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.swtpm import Swtpm, swtpm


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    """A TPM of its own for each test."""
    with swtpm(tmp_path / "tpm") as running:
        yield running
