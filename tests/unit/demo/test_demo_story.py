"""What the demo says where it cannot show everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ostiary.demo import story
from ostiary.demo.processes import Children
from ostiary.errors import OutsideError
from ostiary.session import parse_session


def stage(directory: Path) -> story._Stage:
    nowhere = directory / "nothing"
    return story._Stage(
        directory=directory,
        running=Children(directory),
        client_api="127.0.0.1:1",
        enclave_api="127.0.0.1:1",
        authority=str(nowhere),
        socket=str(nowhere),
        certificate=nowhere,
        key=nowhere,
    )


def test_without_the_library_for_rules_the_board_is_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "find_spec", lambda name: None)
    said: list[str] = []
    story._policy_board(stage(tmp_path), said.append)
    assert said[-1] == "    Left out: the program that decides needs a library; pip install 'ostiary[checker]'."


def test_a_command_that_ends_otherwise_than_told_ends_the_demo() -> None:
    with pytest.raises(OutsideError, match="false ended with status 1"):
        story._output(["false"])
    with pytest.raises(OutsideError, match="true ended with status 0"):
        story._output(["true"], expect=1)
    assert story._output(["sh", "-c", "echo out; echo err >&2; exit 1"], expect=1) == "err\n"


@pytest.mark.parametrize("name", ["checker", "board"])
def test_the_sessions_of_the_board_are_sessions(name: str) -> None:
    body = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    key = json.dumps(f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    people = {"ALICE": key, "BOB": key.replace("Gb9E", "Ag9E"), "CAROL": key.replace("Gb9E", "Bg9E")}
    others = {"MEASUREMENT": "ab" * 32, "COMMAND": "/ostiary checker", "ADDRESS": "a:1", "AUTHORITY": "text"}
    text = story._session(name, TOLERATED="", WORDS="", **people, **others)
    assert parse_session(text).session.name == name
