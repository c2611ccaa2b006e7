"""Volumes and main file systems on real mTLS: the states that a start may have, and how a running program moves them.

The programs attest as real ones do; their disks are simulated (tests/simulators/disk.py), so that a test can do to
them what a host can.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.disk import Disk, Mounted, MountRefusedError, WriteFailedError, mount_main, mount_volume, tag_of
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, exchange, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, NOW, SgxPlatform, make_platform

from ostiary.server import limits

_numbers = count()

HEAD = 'version: "0.3.12"\nname: {name}\nsecurity: {{attestation: {{tolerate: [debug-mode]}}}}\n'
SERVICE = f"attestation: {{mrenclave: '{MR_ENCLAVE.hex()}'}}, image_name: i"
KEY, OTHER_KEY = "11" * 32, "22" * 32
INITIAL = {"app": "as shipped"}


@pytest.fixture(scope="module")
def platform() -> SgxPlatform:
    return make_platform()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, platform: SgxPlatform) -> Iterator[RunningService]:
    directory = tmp_path_factory.mktemp("protected") / "data"
    with running_service(directory, roots=(platform.software_root,), fixed_time=NOW) as running:
        yield running


class Stage:
    """Somebody who uploads sessions, and programs that start."""

    def __init__(self, service: RunningService, platform: SgxPlatform, client: Client) -> None:
        self.service = service
        self._platform = platform
        self._client = client
        self._hashes: dict[str, str] = {}

    def upload(self, name: str, text: str) -> Answer:
        """Create a session, or replace its current version."""
        text = HEAD.format(name=name) + text
        if name in self._hashes:
            text += f"predecessor: {self._hashes[name]}\n"
        answer = self._client.request(self.service.client_port, "POST", "/session", text.encode())
        if answer.status == 201:
            self._hashes[name] = answer.body["hash"]
        return answer

    def store(self, name: str, text: str) -> str:
        """As `upload`, and it must be accepted; the hash."""
        answer = self.upload(name, text)
        assert answer.status == 201, answer.body
        return str(answer.body["hash"])

    @contextlib.contextmanager
    def asked(self, service_id: str) -> Iterator[tuple[AttestingProgram, Answer]]:
        """A program that attested, and what it was told."""
        with attesting(self.service, self._client) as program:
            yield program, program.start(self._platform, service_id)

    @contextlib.contextmanager
    def started(self, service_id: str) -> Iterator[tuple[AttestingProgram, dict[str, Any]]]:
        """A program that was admitted, and its configuration."""
        with self.asked(service_id) as (program, answer):
            assert answer.status == 200, answer.body
            yield program, answer.body

    @contextlib.contextmanager
    def mounted(self, service_id: str, disk: Disk, number: int = 0) -> Iterator[Mounted]:
        """A program with a volume of its image on `disk`."""
        with self.started(service_id) as (program, configuration):
            yield mount_volume(program, configuration["volumes"][number], disk)

    @contextlib.contextmanager
    def main(self, service_id: str, disk: Disk) -> Iterator[Mounted]:
        """A program with its main file system on `disk`."""
        with self.started(service_id) as (program, configuration):
            yield mount_main(program, configuration["main_file_system"], disk)


@pytest.fixture(scope="module")
def stage(service: RunningService, platform: SgxPlatform, alice: Client) -> Stage:
    return Stage(service, platform, alice)


@pytest.fixture
def name() -> str:
    return f"files-{next(_numbers)}"


@pytest.fixture
def leaves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is written into the audit log from now on."""
    written: list[dict[str, Any]] = []
    commit = stage.service.cas.store.commit

    def watched(writes: Any, leaf: bytes, **named: Any) -> Any:
        written.append(json.loads(leaf))
        return commit(writes, leaf, **named)

    monkeypatch.setattr(stage.service.cas.store, "commit", watched)
    return written


def volumes(policy: str = "rollback_protected", volume: str = "name: data") -> str:
    """A service `s` with a volume at /data."""
    return (
        f"services: [{{name: s, {SERVICE}, pwd: /srv}}]\n"
        f"images: [{{name: i, volumes: [{{name: data, path: /data, update_policy: {policy}}}]}}]\n"
        f"volumes: [{{{volume}}}]\n"
    )


def main(policy: str = "rollback_protected_reinitializable", tag: str | None = None, key: str = KEY) -> str:
    """A service `s` with a main file system."""
    tag = tag_of(KEY, INITIAL) if tag is None else tag
    given = f"fspf_tag: '{tag}', " if tag else ""
    return (
        f"services: [{{name: s, {SERVICE}, pwd: /srv, fspf_path: /fspf/main, fspf_key: '{key}', {given}"
        f"fspf_update_policy: {policy}}}]\n"
    )


def refused(answer: Answer, *words: str) -> None:
    assert answer.status == 403, answer.body
    assert "denial" in answer.body
    for word in words:
        assert word in " ".join(answer.body["msg"])


# --- volumes of the session itself


def test_f161_a_volume_is_initialised_once(stage: Stage, name: str) -> None:
    """F161: the first start makes it, with a key of the service's; later starts must find it as it was recorded."""
    stage.store(name, volumes())
    disk = Disk()
    with stage.started(f"{name}/s") as (program, configuration):
        (released,) = configuration["volumes"]
        assert {**released, "key": ""} == {
            "name": "data", "path": "/data", "key": "", "tag": None, "initialise": True, "files": "encrypted",
            "update_policy": "rollback_protected",
        }  # fmt: skip
        mount_volume(program, released, disk).write("a", "1")
    with stage.started(f"{name}/s") as (program, configuration):
        (again,) = configuration["volumes"]
        assert again == {**released, "tag": tag_of(released["key"], {"": "", "a": "1"}), "initialise": False}
        with pytest.raises(MountRefusedError, match="there is no volume"):
            mount_volume(program, again, Disk())
        answer = program.report("volume:data", None, tag_of(again["key"], {"": ""}))
        assert answer.status == 409
        assert answer.body["current"] == again["tag"]
        assert "a change of the volume without a state" in answer.body["msg"][0]


def test_f161_two_starts_race_to_initialise_and_one_wins(stage: Stage, name: str) -> None:
    """F161: both receive the same key; the second initialisation that is reported is refused, with the winner's tag."""
    stage.store(name, volumes())
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as stack:
        both = [stack.enter_context(attesting(stage.service, stage._client)) for _ in range(2)]
        answers = list(pool.map(lambda program: program.start(stage._platform, f"{name}/s"), both))
        first, second = (answer.body["volumes"][0] for answer in answers)
        assert first == second
        assert first["initialise"]
        mine, yours = tag_of(first["key"], {"": "mine"}), tag_of(first["key"], {"": "yours"})
        assert both[0].report("volume:data", None, mine).status == 200
        lost = both[1].report("volume:data", None, yours)
        assert (lost.status, lost.body["current"]) == (409, mine)
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["volumes"][0]["tag"] == mine


def test_every_volume_has_a_key_of_its_own(stage: Stage, name: str) -> None:
    stage.store(name, volumes())
    stage.store(f"{name}-2", volumes())
    keys = set()
    for session in (name, f"{name}-2"):
        with stage.started(f"{session}/s") as (_, configuration):
            keys.add(configuration["volumes"][0]["key"])
    assert len(keys) == 2
    assert all(len(key) == 64 for key in keys)


def test_f169_an_older_state_is_refused(stage: Stage, name: str) -> None:
    """F169: a start demands the last recorded state, and a change counts only if it follows that."""
    stage.store(name, volumes())
    disk = Disk()
    with stage.mounted(f"{name}/s", disk) as data:
        data.write("balance", "100")
        older = disk.copy()
        data.write("balance", "0")
    newest = disk.copy()
    disk.put_back(older)
    with pytest.raises(MountRefusedError, match="expected"), stage.mounted(f"{name}/s", disk):
        pass
    disk.put_back(newest)
    with stage.mounted(f"{name}/s", disk) as data:
        disk.put_back(older)
        data.tag = tag_of(data.key, older.files or {})
        with pytest.raises(WriteFailedError) as failed:
            data.write("balance", "200")
    assert failed.value.answer.status == 409
    assert failed.value.answer.body["current"] == tag_of(data.key, newest.files or {})
    assert "put back to an older state" in failed.value.answer.body["msg"][1]


def test_f169_of_two_running_instances_the_slower_gets_the_conflict(stage: Stage, name: str) -> None:
    """F169: one linear history."""
    stage.store(name, volumes())
    disk = Disk()
    with stage.mounted(f"{name}/s", disk):
        pass
    with stage.mounted(f"{name}/s", disk) as first, stage.mounted(f"{name}/s", disk) as second:
        first.write("a", "1")
        with pytest.raises(WriteFailedError):
            second.write("b", "2")


def test_f170_what_an_ephemeral_use_writes_is_not_recorded(stage: Stage, name: str) -> None:
    """F170: the tag stays, and the next start is refused until the volume is restored."""
    stage.store(name, volumes())
    disk = Disk()
    with stage.mounted(f"{name}/s", disk) as data:
        data.write("config", "fixed")
    stage.store(name, volumes("ephemeral"))
    fixed = disk.copy()
    with stage.mounted(f"{name}/s", disk) as data:
        before = stage.service.cas.store.head
        assert data.write("scratch", "x").body == {"recorded": False}
        assert stage.service.cas.store.head == before
    with pytest.raises(MountRefusedError, match="expected"), stage.mounted(f"{name}/s", disk):
        pass
    disk.put_back(fixed)
    with stage.mounted(f"{name}/s", disk) as data:
        assert data.tag == tag_of(data.key, fixed.files or {})


def test_f170_an_ephemeral_use_cannot_make_a_volume(stage: Stage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """F170: what is never recorded would be initialised again and again."""
    stage.store(name, volumes("ephemeral"))
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"), stage.asked(f"{name}/s") as (_, answer):
        refused(answer, "volume 'data' cannot be used")
    assert "no state yet" not in json.dumps(answer.body)
    assert "it has no state yet" in caplog.text


def test_f171_without_protection_an_older_state_is_accepted(stage: Stage, name: str) -> None:
    """F171: any state under the key may be mounted, and what is reported is recorded without check."""
    stage.store(name, volumes("no_rollback_protection"))
    disk = Disk()
    with stage.mounted(f"{name}/s", disk) as data:
        data.write("a", "1")
        older = disk.copy()
        data.write("a", "2")
    disk.put_back(older)
    with stage.started(f"{name}/s") as (program, configuration):
        (released,) = configuration["volumes"]
        assert (released["tag"], released["initialise"]) == (None, False)
        data = mount_volume(program, released, disk)
        assert data.write("a", "3").body == {"recorded": True}
    stage.store(name, volumes())
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["volumes"][0]["tag"] == data.tag


def test_a_report_may_be_repeated(stage: Stage, name: str) -> None:
    """A runtime that did not hear the answer asks again; the second time nothing is written."""
    stage.store(name, volumes())
    with stage.mounted(f"{name}/s", Disk()) as data:
        old, new = data.tag, "ab" * 16
        before = stage.service.cas.store.head.log_size
        for _ in range(3):
            assert data.program.report("volume:data", old, new).body == {"recorded": True}
        assert data.program.report("volume:data", new, new).status == 200
        assert stage.service.cas.store.head.log_size == before + 1


def test_each_recorded_change_is_one_entry_of_the_audit_log(
    stage: Stage, name: str, leaves: list[dict[str, Any]]
) -> None:
    stage.store(name, volumes())
    with stage.started(f"{name}/s") as (program, _):
        leaves.clear()
        program.report("volume:data", None, "ab" * 16)
    (leaf,) = leaves
    assert leaf["type"] == "volume_fspf_tag_updated"
    assert leaf["data"] == {"session": name, "service": "s", "volume": "data", "tag": "ab" * 16}


def test_each_change_of_a_main_file_system_is_one_entry_of_the_audit_log(
    stage: Stage, name: str, leaves: list[dict[str, Any]]
) -> None:
    stage.store(name, main())
    with stage.started(f"{name}/s") as (program, _):
        leaves.clear()
        program.report("main", tag_of(KEY, INITIAL), "ab" * 16)
    (leaf,) = leaves
    assert leaf["type"] == "service_fspf_tag_updated"
    assert leaf["data"] == {"session": name, "service": "s", "tag": "ab" * 16}


# --- what an update of the session means


def test_key_and_state_of_a_volume_survive_an_update(stage: Stage, name: str) -> None:
    stage.store(name, volumes())
    disk = Disk()
    with stage.mounted(f"{name}/s", disk) as data:
        data.write("a", "1")
    stage.store(name, volumes(volume="name: data, export: {session: other}"))
    with stage.mounted(f"{name}/s", disk) as again:
        assert (again.key, again.tag) == (data.key, data.tag)
    stage.store(name, volumes().replace("data", "other"))
    with stage.started(f"{name}/s") as (_, configuration):
        (released,) = configuration["volumes"]
        assert released["initialise"]
        assert released["key"] != data.key
    stage.store(name, volumes())
    with stage.mounted(f"{name}/s", disk) as again:
        assert again.key == data.key


def test_key_and_tag_that_an_update_gives_replace_the_state(stage: Stage, name: str) -> None:
    given = "name: data, fspf_key: '{}', fspf_tag: '{}'"
    one, two = tag_of(KEY, {"a": "1"}), tag_of(KEY, {"a": "2"})
    stage.store(name, volumes(volume=given.format(KEY, one)))
    disk = Disk(files={"a": "1"})
    with stage.mounted(f"{name}/s", disk) as data:
        assert data.key == KEY
        data.write("a", "9")
        stage.store(name, volumes(volume=given.format(KEY, two)))
        denied = data.program.report("volume:data", data.tag, "cd" * 16)
    refused(denied, "volume 'data' is not used as it was when this program started", "start the program again")
    with stage.mounted(f"{name}/s", Disk(files={"a": "2"})):
        pass
    # Back to the first text: the state is the given one again, not what the first program made of it.
    stage.store(name, volumes(volume=given.format(KEY, one)))
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["volumes"][0]["tag"] == one
    stage.store(name, volumes(volume=given.format(OTHER_KEY, one)))
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["volumes"][0]["key"] == OTHER_KEY


@pytest.mark.parametrize("used", [False, True])
def test_an_update_cannot_change_the_files_of_a_volume(stage: Stage, name: str, used: bool) -> None:
    stage.store(name, volumes())
    if used:
        with stage.mounted(f"{name}/s", Disk()):
            pass
        stage.store(name, f"services: [{{name: s, {SERVICE}}}]\n")
    changed = stage.upload(name, volumes(volume="name: data, files: authenticated-only"))
    assert changed.status == 400
    assert "volume data: files is authenticated-only" in " ".join(changed.body["msg"])


def test_authenticated_only_volumes_are_released_as_such(stage: Stage, name: str) -> None:
    stage.store(name, volumes(volume="name: data, files: authenticated-only"))
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["volumes"][0]["files"] == "authenticated-only"


def test_the_key_may_be_a_secret(stage: Stage, name: str) -> None:
    given = f"name: data, fspf_key: $$SCONE::k$$, fspf_tag: '{tag_of(KEY, {'a': '1'})}'"
    stage.store(name, volumes(volume=given) + f"secrets: [{{name: k, kind: binary, value: '{KEY}'}}]\n")
    with stage.mounted(f"{name}/s", Disk(files={"a": "1"})) as data:
        assert data.key == KEY


def test_a_secret_that_is_no_key_is_refused(stage: Stage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    stage.store(f"{name}-e", f"secrets: [{{name: k, kind: binary, value: '{KEY}00', export: {{session: {name}}}}}]\n")
    given = f"name: data, fspf_key: $$SCONE::k$$, fspf_tag: '{'ab' * 16}'"
    imported = f"secrets: [{{name: k, import: {{session: {name}-e, secret: k}}}}]\n"
    stage.store(name, volumes(volume=given) + imported)
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"), stage.asked(f"{name}/s") as (_, answer):
        refused(answer, "volume 'data' cannot be used")
    assert "$$SCONE::k$$ is no binary secret of 32 bytes" in caplog.text
    assert KEY not in caplog.text


def test_a_volume_mounted_in_two_ways_is_refused(stage: Stage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    mounts = "{name: data, path: /a}, {name: data, path: /b, update_policy: ephemeral}"
    stage.store(name, volumes().replace("{name: data, path: /data, update_policy: rollback_protected}", mounts))
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"), stage.asked(f"{name}/s") as (_, answer):
        refused(answer, "volume 'data' cannot be used")
    assert "mounted twice" in caplog.text


# --- volumes of other sessions


def exporting(export: str, policy: str = "no_rollback_protection") -> str:
    return volumes(policy, f"name: data, export: {export}")


def importing(session: str, volume: str, policy: str = "rollback_protected", more: str = "") -> str:
    return volumes(policy, f"name: data, import: {{session: {session}, volume: {volume}{more}}}")


def test_f167_the_alias_is_the_only_name_for_that_importer(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F167: the alias works, the volume's own name is unknown to the importer, and other importers have other names."""
    aliased = f"{{to: {{session: {name}-b}}, volume_alias: output}}"
    stage.store(f"{name}-a", exporting(f"[{aliased}, {{session: {name}-c}}]"))
    stage.store(f"{name}-b", importing(f"{name}-a", "output"))
    stage.store(f"{name}-c", importing(f"{name}-a", "data"))
    disk = Disk()
    with stage.mounted(f"{name}-b/s", disk) as data:
        data.write("result", "42")
    with stage.mounted(f"{name}-c/s", disk) as same:
        assert same.key == data.key
        same.write("seen", "yes")
    for session, volume in ((f"{name}-b", "data"), (f"{name}-c", "output")):
        stage.store(session, importing(f"{name}-a", volume))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="ostiary.broker"), stage.asked(f"{session}/s") as (_, answer):
            refused(answer, "volume 'data' cannot be used", "ask those who may read the session")
        assert f"session {name}-a exports no volume {volume!r} to session {session}" in caplog.text
        assert f"{name}-a" not in json.dumps(answer.body)


def test_the_audit_log_names_the_exporting_session(stage: Stage, name: str, leaves: list[dict[str, Any]]) -> None:
    stage.store(f"{name}-a", exporting(f"{{session: {name}-b}}"))
    stage.store(f"{name}-b", importing(f"{name}-a", "data"))
    with stage.started(f"{name}-b/s") as (program, _):
        leaves.clear()
        program.report("volume:data", None, "ab" * 16)
    assert leaves[0]["data"] == {
        "session": f"{name}-b", "service": "s", "volume": "data", "tag": "ab" * 16, "exporter": f"{name}-a",
    }  # fmt: skip


@pytest.mark.parametrize(("limit", "asked", "used"), [
    ("ephemeral", "rollback_protected", "ephemeral"),
    ("ephemeral", "ephemeral", "ephemeral"),
    ("ephemeral", "no_rollback_protection", None),
    ("rollback_protected", "rollback_protected", "rollback_protected"),
    ("rollback_protected", "ephemeral", "ephemeral"),
    ("rollback_protected", "no_rollback_protection", None),
    ("no_rollback_protection", "rollback_protected", "rollback_protected"),
    ("no_rollback_protection", "ephemeral", "ephemeral"),
    ("no_rollback_protection", "no_rollback_protection", "no_rollback_protection"),
])  # fmt: skip
def test_f173_the_exporter_limits_how_an_importer_uses_its_volume(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture, limit: str, asked: str, used: str | None
) -> None:
    """F173: the matrix of 10.3. What is beyond it is accepted at upload and refused where the volume is accessed."""
    stage.store(f"{name}-a", exporting(f"{{to: {{session: {name}-b}}, update_policy: {limit}}}"))
    with stage.mounted(f"{name}-a/s", Disk()) as own:
        pass
    stage.store(f"{name}-b", importing(f"{name}-a", "data", asked))
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"), stage.asked(f"{name}-b/s") as (program, answer):
        if used is None:
            refused(answer, "volume 'data' cannot be used")
            assert f"the exporting session allows {limit} only" in caplog.text.replace("ephemeral and ", "")
            return
        (released,) = answer.body["volumes"]
        assert (released["update_policy"], released["key"]) == (used, own.key)
        old = "cd" * 16 if used == "no_rollback_protection" else own.tag
        assert program.report("volume:data", old, "ab" * 16).body == {"recorded": used != "ephemeral"}
    with stage.started(f"{name}-b/s") as (_, configuration):
        demanded = {"rollback_protected": "ab" * 16, "ephemeral": own.tag, "no_rollback_protection": None}
        assert configuration["volumes"][0]["tag"] == demanded[used]


def test_an_export_and_an_import_can_be_pinned_to_a_version(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = stage.store(f"{name}-a", exporting(f"{{session: {name}-b}}"))
    pinned = stage.store(f"{name}-b", importing(f"{name}-a", "data", more=f", session_hash: '{exporter}'"))
    with stage.mounted(f"{name}-b/s", Disk()):
        pass
    stage.store(f"{name}-a", exporting(f"{{session: {name}-b, session_hash: '{pinned}'}}"))
    caplog.set_level(logging.WARNING, logger="ostiary.broker")
    with stage.asked(f"{name}-b/s") as (_, answer):
        refused(answer, "volume 'data' cannot be used")
    assert "is no longer the version with session_hash" in caplog.text
    stage.store(f"{name}-b", importing(f"{name}-a", "data"))
    caplog.clear()
    with stage.asked(f"{name}-b/s") as (_, answer):
        refused(answer, "volume 'data' cannot be used")
    assert "exports no volume 'data'" in caplog.text


def test_a_volume_of_a_session_that_is_not_there_is_refused(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store(name, importing("nonesuch", "data"))
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"), stage.asked(f"{name}/s") as (_, answer):
        refused(answer, "volume 'data' cannot be used")
    assert "there is no session nonesuch" in caplog.text


def test_an_export_that_ends_stops_running_importers(stage: Stage, name: str) -> None:
    """A report is an access: it is judged by what the exporter says now."""
    stage.store(f"{name}-a", exporting(f"{{session: {name}-b}}"))
    stage.store(f"{name}-b", importing(f"{name}-a", "data"))
    with stage.mounted(f"{name}-b/s", Disk()) as data:
        stage.store(f"{name}-a", exporting("{session: elsewhere}"))
        with pytest.raises(WriteFailedError) as failed:
            data.write("a", "1")
    refused(failed.value.answer, "volume 'data' cannot be used")


def test_a_limit_that_is_lowered_stops_running_importers(stage: Stage, name: str) -> None:
    stage.store(f"{name}-a", exporting(f"{{session: {name}-b}}"))
    stage.store(f"{name}-b", importing(f"{name}-a", "data"))
    with stage.mounted(f"{name}-b/s", Disk()) as data:
        stage.store(f"{name}-a", exporting(f"{{to: {{session: {name}-b}}, update_policy: ephemeral}}"))
        with pytest.raises(WriteFailedError) as failed:
            data.write("a", "1")
    refused(failed.value.answer, "volume 'data' is not used as it was when this program started")


def test_one_exported_volume_under_two_names_of_an_importer_is_one_volume(stage: Stage, name: str) -> None:
    stage.store(f"{name}-a", exporting(f"{{session: {name}-b}}"))
    source = f"import: {{session: {name}-a, volume: data}}"
    stage.store(
        f"{name}-b",
        f"services: [{{name: s, {SERVICE}}}]\nimages: [{{name: i, volumes: [{{name: x, path: /x}}, "
        f"{{name: y, path: /y}}]}}]\nvolumes: [{{name: x, {source}}}, {{name: y, {source}}}]\n",
    )
    with stage.started(f"{name}-b/s") as (program, configuration):
        x, y = configuration["volumes"]
        assert x["key"] == y["key"]
        assert program.report("volume:x", None, "ab" * 16).status == 200
        assert program.report("volume:y", "ab" * 16, "cd" * 16).status == 200


# --- main file systems


def test_f172_instances_start_at_the_initial_state_and_keep_a_line_each(stage: Stage, name: str) -> None:
    """F172: the initial state and the newest state of each line are accepted, what lies between is refused."""
    stage.store(name, main())
    shipped = Disk(files=dict(INITIAL))
    one, two = shipped.copy(), shipped.copy()
    with stage.main(f"{name}/s", one) as first, stage.main(f"{name}/s", two) as second:
        first.write("log", "one")
        second.write("log", "two")
        between = one.copy()
        first.write("log", "one more")
        second.write("log", "two more")
    for disk in (shipped, one, two):
        with stage.main(f"{name}/s", disk.copy()):
            pass
    with pytest.raises(MountRefusedError, match="expected one of"), stage.main(f"{name}/s", between):
        pass
    with stage.main(f"{name}/s", one) as continued:
        before = continued.tag
        continued.write("log", "restarted")
    with stage.started(f"{name}/s") as (_, configuration):
        released = configuration["main_file_system"]
    assert {**released, "key": ""} == {
        "path": "/fspf/main", "key": "", "update_policy": "rollback_protected_reinitializable",
        "tags": [tag_of(KEY, INITIAL), second.tag, continued.tag],
    }  # fmt: skip
    assert before not in released["tags"]


def test_f172_an_intermediate_state_cannot_be_continued(stage: Stage, name: str) -> None:
    """F172: not even by a program whose runtime does not look."""
    stage.store(name, main())
    with stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as line:
        line.write("a", "1")
        between = line.tag
        line.write("a", "2")
        again = line.program.report("main", between, "ab" * 16)
        assert (again.status, again.body["current"]) == (409, line.tag)
    with stage.started(f"{name}/s") as (program, _):
        answer = program.report("main", between, "ab" * 16)
        assert (answer.status, answer.body["current"]) == (409, None)
        assert "no such state is the newest one" in answer.body["msg"][0]


def test_f172_a_start_has_one_line(stage: Stage, name: str) -> None:
    """F172: it cannot go back to the initial state and open another one."""
    stage.store(name, main())
    with stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as line:
        line.write("a", "1")
        answer = line.program.report("main", tag_of(KEY, INITIAL), "ab" * 16)
        assert (answer.status, answer.body["current"]) == (409, line.tag)


def test_f172_two_lines_in_the_same_state_go_on_apart(stage: Stage, name: str) -> None:
    """F172: instances of one program often write the same first; of two that continue one line, one is refused."""
    stage.store(name, main())
    with (
        stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as first,
        stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as second,
    ):
        for line in (first, second):
            line.write("a", "the same")
        assert first.tag == second.tag
        first.write("a", "one")
        second.write("a", "two")
    disk = first.disk.copy()
    with stage.main(f"{name}/s", disk) as winner, stage.main(f"{name}/s", disk.copy()) as loser:
        winner.write("b", "1")
        with pytest.raises(WriteFailedError):
            loser.write("b", "2")


def test_f171_a_main_file_system_without_protection_needs_no_tag(stage: Stage, name: str) -> None:
    """F171: of the main file system too."""
    stage.store(name, main("no_rollback_protection", tag=""))
    disk = Disk(files=dict(INITIAL))
    with stage.main(f"{name}/s", disk) as line:
        line.write("a", "1")
        older = disk.copy()
        line.write("a", "2")
    with stage.main(f"{name}/s", older) as line:
        assert line.write("a", "3").body == {"recorded": True}
        assert line.write("a", "1").body == {"recorded": True}
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["main_file_system"]["tags"] is None


def test_another_initial_state_begins_anew(stage: Stage, name: str) -> None:
    stage.store(name, main())
    with stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as line:
        line.write("a", "1")
        stage.store(name, main(tag="ab" * 16))
        refused(line.program.report("main", line.tag, "cd" * 16), "the main file system is not used as it was")
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["main_file_system"]["tags"] == ["ab" * 16]


def test_the_lines_survive_an_update_that_leaves_them(stage: Stage, name: str) -> None:
    stage.store(name, main())
    with stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as line:
        line.write("a", "1")
        stage.store(name, main().replace("pwd: /srv", "pwd: /opt"))
        line.write("a", "2")
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["main_file_system"]["tags"] == [tag_of(KEY, INITIAL), line.tag]


def test_the_lines_of_a_service_that_had_none_for_a_while_are_still_there(stage: Stage, name: str) -> None:
    stage.store(name, main())
    with stage.main(f"{name}/s", Disk(files=dict(INITIAL))) as line:
        line.write("a", "1")
        stage.store(name, f"services: [{{name: s, {SERVICE}}}]\n")
        refused(line.program.report("main", line.tag, "cd" * 16), "the main file system is not used as it was")
    stage.store(name, main())
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["main_file_system"]["tags"] == [tag_of(KEY, INITIAL), line.tag]
    stage.store(name, f"services: [{{name: s, {SERVICE}}}]\n")
    stage.store(name, main(key=OTHER_KEY))
    with stage.started(f"{name}/s") as (_, configuration):
        assert configuration["main_file_system"]["tags"] == [tag_of(KEY, INITIAL)]


def test_a_volume_that_comes_back_with_another_key_begins_anew(stage: Stage, name: str) -> None:
    stage.store(name, volumes())
    with stage.mounted(f"{name}/s", Disk()) as data:
        data.write("a", "1")
    stage.store(name, f"services: [{{name: s, {SERVICE}}}]\n")
    stage.store(name, volumes(volume=f"name: data, fspf_key: '{KEY}', fspf_tag: '{'ab' * 16}'"))
    with stage.started(f"{name}/s") as (_, configuration):
        (released,) = configuration["volumes"]
        assert (released["key"], released["tag"]) == (KEY, "ab" * 16)


def test_many_instances_report_at_once(stage: Stage, name: str) -> None:
    """They share one record; each gets its turn."""
    stage.store(name, main())
    instances = 12
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(instances) as pool:
        lines = [stack.enter_context(stage.main(f"{name}/s", Disk(files=dict(INITIAL)))) for _ in range(instances)]

        def run(number: int) -> list[int]:
            return [lines[number].write("log", f"{number}.{step}").status for step in range(5)]

        assert list(pool.map(run, range(instances))) == [[200] * 5] * instances
    with stage.started(f"{name}/s") as (_, configuration):
        tags = configuration["main_file_system"]["tags"]
    assert set(tags) == {tag_of(KEY, INITIAL), *(line.tag for line in lines)}


# --- whose reports count


def test_a_service_that_the_session_has_no_more_reports_nothing(stage: Stage, name: str) -> None:
    stage.store(name, volumes())
    with stage.mounted(f"{name}/s", Disk()) as data:
        stage.store(name, volumes().replace("name: s,", "name: t,"))
        with pytest.raises(WriteFailedError) as failed:
            data.write("a", "1")
    refused(failed.value.answer, f"session {name} has no service 's' any more")


def test_a_volume_that_the_image_has_no_more_is_not_reported(stage: Stage, name: str) -> None:
    stage.store(name, volumes())
    with stage.mounted(f"{name}/s", Disk()) as data:
        stage.store(name, f"services: [{{name: s, {SERVICE}}}]\nvolumes: [{{name: data}}]\n")
        with pytest.raises(WriteFailedError) as failed:
            data.write("a", "1")
    refused(failed.value.answer, "volume 'data' is not used as it was")


def test_only_the_connection_of_the_start_reports(stage: Stage, name: str, alice: Client) -> None:
    """Not even another connection of the same TLS key."""
    stage.store(name, volumes())
    with stage.started(f"{name}/s"), attesting(stage.service, alice) as other:
        answer = other.report("volume:data", None, "ab" * 16)
    assert answer.status == 403
    assert "no configuration was released on this connection" in answer.body["msg"][0]


@pytest.mark.parametrize("target", ["volume:other", "main", "volume:", "data", "", "volume:data\n"])
def test_only_the_start_s_own_files_are_reported(stage: Stage, name: str, target: str) -> None:
    stage.store(name, volumes())
    stage.store(f"{name}-2", volumes().replace("data", "other"))
    with stage.started(f"{name}-2/s"), stage.started(f"{name}/s") as (program, _):
        answer = program.report(target, None, "ab" * 16)
    assert answer.status == 400
    assert "is no volume or main file system of this service" in answer.body["msg"][0]


@pytest.mark.parametrize(("members", "says"), [
    ({"target": "volume:data", "old": None}, "exactly the members"),
    ({"target": "volume:data", "old": None, "new": None}, "'new' must be a tag"),
    ({"target": "volume:data", "old": "", "new": "ab" * 16}, "'old' must be a tag"),
    ({"target": "volume:data", "old": 1, "new": "ab" * 16}, "'old' must be a tag"),
    ({"target": "volume:data", "old": None, "new": "AB" * 16}, "'new' must be a tag of 32 lower-case hex digits"),
    ({"target": "volume:data", "old": None, "new": "ab" * 16 + "\n"}, "'new' must be a tag"),
    ({"target": ["volume:data"], "old": None, "new": "ab" * 16}, "'target' must be text"),
    ({"target": "main", "old": None, "new": "ab" * 16}, "no volume or main file system"),
])  # fmt: skip
def test_a_malformed_report_is_refused(stage: Stage, name: str, members: dict[str, Any], says: str) -> None:
    stage.store(name, volumes())
    with stage.started(f"{name}/s") as (program, _):
        answer = exchange(program.connection, "POST", "/v1/tags", json.dumps(members).encode())  # type: ignore[arg-type]
    assert (answer.status, says in answer.body["msg"][0]) == (400, True), answer.body


def test_a_main_file_system_is_never_initialised(stage: Stage, name: str) -> None:
    stage.store(name, main())
    with stage.started(f"{name}/s") as (program, _):
        answer = program.report("main", None, "ab" * 16)
    assert answer.status == 400
    assert "no state before the change" in answer.body["msg"][0]


def test_a_service_without_protected_files_is_told_nothing_of_them(stage: Stage, name: str) -> None:
    stage.store(name, f"services: [{{name: s, {SERVICE}}}]\nvolumes: [{{name: data}}]\n")
    with stage.started(f"{name}/s") as (program, configuration):
        assert {"volumes", "main_file_system"}.isdisjoint(configuration)
        assert program.report("volume:data", None, "ab" * 16).status == 400


def test_keys_stand_in_no_repr_and_no_log(stage: Stage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    stage.store(name, volumes())
    with caplog.at_level(logging.DEBUG), stage.started(f"{name}/s") as (program, configuration):
        key = configuration["volumes"][0]["key"]
        assert program.report("volume:data", None, "ab" * 16).status == 200
        assert program.report("volume:data", None, "cd" * 16).status == 409
    state, _ = stage.service.cas.files.volume(f"volume/{name}/data")
    assert "volume_fspf_tag_updated" in caplog.text
    for text in (caplog.text, repr(state)):
        assert key not in text
        assert repr(bytes.fromhex(key)) not in text


def test_states_outlive_the_service_process(tmp_path: Path, platform: SgxPlatform, alice: Client) -> None:
    disks = Disk(), Disk(files=dict(INITIAL))
    text = volumes().replace("pwd: /srv", f"fspf_path: f, fspf_key: '{KEY}', fspf_tag: '{tag_of(KEY, INITIAL)}'")

    @contextlib.contextmanager
    def running() -> Iterator[Stage]:
        with running_service(tmp_path / "data", roots=(platform.software_root,), fixed_time=NOW) as service:
            yield Stage(service, platform, alice)

    with running() as stage:
        stage.store("a", text)
        with stage.mounted("a/s", disks[0]) as data, stage.main("a/s", disks[1]) as line:
            data.write("a", "1")
            line.write("a", "1")
    with running() as stage, stage.mounted("a/s", disks[0]) as again, stage.main("a/s", disks[1]) as continued:
        assert (again.key, again.tag, continued.tag) == (data.key, data.tag, line.tag)


def test_the_connection_of_such_a_start_may_be_idle_for_long(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are closed soon after an answer; a program writes when it has something to write."""
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.2)
    stage.store(name, volumes())
    stage.store(f"{name}-2", f"services: [{{name: s, {SERVICE}}}]\n")
    with attesting(stage.service, stage._client) as idle, attesting(stage.service, stage._client) as plain:
        assert plain.start(stage._platform, f"{name}-2/s").status == 200
        assert idle.start(stage._platform, f"{name}/s").status == 200
        assert plain.connection.sock.recv(1) == b""  # type: ignore[attr-defined]
        assert idle.report("volume:data", None, "ab" * 16).status == 200
