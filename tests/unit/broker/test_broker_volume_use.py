"""Whose volume an image means, and how freely it may be used: the tables of the language's section 10."""

from __future__ import annotations

import pytest

from ostiary.broker.volume_use import exported_volume, permitted_policy
from ostiary.errors import ReleaseRefusedError
from ostiary.session import ParsedSession, parse_session
from ostiary.session.model import ImportedVolume

RP, EPHEMERAL, NONE = "rollback_protected", "ephemeral", "no_rollback_protection"


@pytest.mark.parametrize(("limit", "wanted", "used"), [
    (EPHEMERAL, RP, EPHEMERAL), (EPHEMERAL, EPHEMERAL, EPHEMERAL),
    (RP, RP, RP), (RP, EPHEMERAL, EPHEMERAL),
    (NONE, RP, RP), (NONE, EPHEMERAL, EPHEMERAL), (NONE, NONE, NONE),
])  # fmt: skip
def test_f173_what_the_exporter_allows(limit: str, wanted: str, used: str) -> None:
    """F173."""
    assert permitted_policy(wanted, limit=limit) == used


@pytest.mark.parametrize(("limit", "allowed"), [(EPHEMERAL, "ephemeral"), (RP, "ephemeral and rollback_protected")])
def test_f173_what_the_exporter_does_not_allow(limit: str, allowed: str) -> None:
    """F173: nobody weakens the protection of a volume that is not theirs."""
    with pytest.raises(ReleaseRefusedError) as caught:
        permitted_policy(NONE, limit=limit)
    assert caught.value.message == (
        f"it is mounted with update_policy no_rollback_protection, and the exporting session allows {allowed} only"
    )


def exporter(*volumes: str) -> ParsedSession:
    listed = "".join(f"- {{{volume}}}\n" for volume in volumes)
    return parse_session(f'version: "0.3.12"\nname: a\nvolumes:\n{listed}'.encode())


IMPORTER = parse_session(b'version: "0.3.12"\nname: b\n')
OTHER_HASH = "ab" * 32


def wanted(volume: str = "v", session_hash: bytes | None = None) -> ImportedVolume:
    return ImportedVolume(name="mine", session="a", volume=volume, session_hash=session_hash)


@pytest.mark.parametrize(("export", "name", "policy"), [
    ("{session: b}", "v", RP),
    ("[{session: c}, {session: b}]", "v", RP),
    (f"{{session: b, session_hash: {IMPORTER.hash.hex()}}}", "v", RP),
    ("{to: {session: b}, update_policy: ephemeral}", "v", EPHEMERAL),
    ("{to: {session: b}, volume_alias: w}", "w", RP),
    ("[{to: {session: b}, volume_alias: w, update_policy: ephemeral}, {session: b}]", "v", RP),
    ("[{to: {session: b}, volume_alias: w, update_policy: ephemeral}, {session: b}]", "w", EPHEMERAL),
])  # fmt: skip
def test_f167_what_both_sides_agree_on_is_found_under_the_visible_name(export: str, name: str, policy: str) -> None:
    """F167."""
    volume, found = exported_volume(exporter(f"name: v, export: {export}"), wanted(name), IMPORTER)
    assert (volume.name, found.update_policy) == ("v", policy)


@pytest.mark.parametrize(("volumes", "name", "says"), [
    ((), "v", "session a exports no volume 'v' to session b"),
    (("name: v",), "v", "session a exports no volume 'v' to session b"),
    (("name: v, export: {session: c}",), "v", "exports no volume 'v'"),
    (("name: v, export: {session: b/c}",), "v", "exports no volume 'v'"),
    ((f"name: v, export: {{session: b, session_hash: {OTHER_HASH}}}",), "v", "exports no volume 'v'"),
    (("name: v, export: {to: {session: b}, volume_alias: w}",), "v", "exports no volume 'v'"),
    (("name: v, export: {to: {session: c}, volume_alias: w}",), "w", "exports no volume 'w'"),
    (("name: v, import: {session: c, volume: v}",), "v", "exports no volume 'v'"),
    (("name: v, export: {session: b}", "name: x, export: {to: {session: b}, volume_alias: v}"), "v",
     "exports several volumes to session b as 'v'"),
])  # fmt: skip
def test_f167_what_only_one_side_says_is_refused(volumes: tuple[str, ...], name: str, says: str) -> None:
    """F167: neither the original name behind an alias, nor what goes to others, nor what could be either of two."""
    with pytest.raises(ReleaseRefusedError) as caught:
        exported_volume(exporter(*volumes), wanted(name), IMPORTER)
    assert says in caught.value.message


def test_the_importer_may_name_the_exporters_version() -> None:
    session = exporter("name: v, export: {session: b}")
    assert exported_volume(session, wanted(session_hash=session.hash), IMPORTER)[0].name == "v"
    with pytest.raises(ReleaseRefusedError, match=f"no longer the version with session_hash {OTHER_HASH}"):
        exported_volume(session, wanted(session_hash=bytes.fromhex(OTHER_HASH)), IMPORTER)
