"""Commands run in this process, as a terminal would show them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulators.commands import Scone


@pytest.fixture
def scone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Scone:
    """`scone` with a configuration file of its own, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCONE_CLI_CONFIG", str(tmp_path / "cas" / "config.json"))
    monkeypatch.delenv("SCONE_CLI_RETRIES", raising=False)
    return Scone(directory=tmp_path, capsys=capsys)
