"""What attested programs speak, on 18765 (docs/enclave-protocol.md). Bare ASGI: every start passes here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from starlette.types import Receive, Scope, Send

from ostiary.attester.binding import NONCE_BYTES
from ostiary.broker.cas import Cas
from ostiary.broker.challenge import CHALLENGE_LIFE
from ostiary.broker.configure import Configuration, MainFileSystem, MountedVolume, RenderedFile
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.release import Request, Start, release_configuration
from ostiary.broker.render_file import render_file
from ostiary.broker.update_tag import update_tag
from ostiary.errors import (
    IdentityRequiredError,
    InputError,
    OstiaryError,
    RefusedError,
    TagConflictError,
    TooLargeError,
)
from ostiary.evidence.verifier import TEES
from ostiary.server import limits
from ostiary.server.answers import Answer, JsonValue, answer, error_answer, refusal
from ostiary.server.identity import Identity
from ostiary.server.tls import Connection, connection_of, peer_of
from ostiary.session.model import HostArgument, HostVariable

_log = logging.getLogger("ostiary.server.enclave_api")

ENDORSEMENTS_REMEMBERED = 16
MAX_REMEMBERED_CHARACTERS = 64 * 1024
"""Of the base64 text of one of these; whoever sends more pays for it at each start."""

_TEES = (*TEES, "maa", "none")
_PATHS = ("/v1/challenge", "/v1/configure", "/v1/render", "/v1/tags")
_MEMBERS = {"service", "nonce", "tee", "evidence", "endorsements"}
_PROOF = "access_token_proof"
_PROOF_BYTES = 32
_SEGMENT = r"[A-Za-z0-9_.~-]{1,512}"
_TAG = re.compile(r"[0-9a-f]{32}")
# What stands behind @ and is no one-time password is told to be a wrong one, not a mistake of the protocol.
_SERVICE_ID = re.compile(
    rf"(?P<session>{_SEGMENT}(?:/{_SEGMENT})*)/(?P<service>{_SEGMENT})(?:@(?P<password>[A-Za-z0-9_.~-]{{0,32}}))?"
)


class EnclaveApi:
    """The application behind the enclave listener. server_spki: DER SubjectPublicKeyInfo that it shows."""

    def __init__(self, cas: Cas, *, server_spki: bytes) -> None:
        self._cas = cas
        self._server_spki = server_spki
        self._starts: WeakKeyDictionary[Connection, Start] = WeakKeyDictionary()
        self._answers: WeakKeyDictionary[Configuration, Answer] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError(f"a {scope['type']} scope on an HTTP listener")
        told = await self._answer(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told.body))]
        if told.status == 413:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": told.status, "headers": headers})
        await send({"type": "http.response.body", "body": told.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            rendering = scope["path"] == "/v1/render"
            body = await _read_body(receive, limits.MAX_RENDER_BODY_BYTES if rendering else limits.MAX_BODY_BYTES)
            return await self._dispatch(scope, body)
        except asyncio.CancelledError:
            return refusal(503, "the service is ending; start the program again")
        except DeniedRelease as denied:
            return refusal(403, *denied.told.chain, denial=denied.denial)
        except TagConflictError as conflict:
            current = None if conflict.current is None else conflict.current.hex()
            return refusal(409, *conflict.chain, current=current)
        except OstiaryError as error:
            told = error_answer(error)
            if told.status >= 500:
                _log.error("%s: %s", scope["path"], error)
            return told
        except Exception:
            _log.exception("%s failed", scope["path"])
            return refusal(500, "internal error: nothing was released; the service's log has the details")

    async def _dispatch(self, scope: Scope, body: bytes) -> Answer:
        path = scope["path"]
        if path not in _PATHS:
            return refusal(404, f"no such path; this listener has POST {', '.join(_PATHS)}")
        if scope["method"] != "POST":
            return refusal(405, f"{scope['method']} is not possible here, use POST")
        peer = peer_of(scope)
        if not isinstance(peer, Identity):
            raise IdentityRequiredError("no client certificate was shown; connect with a fresh self-signed one")
        if path == "/v1/challenge":
            return self._challenge(peer)
        connection = connection_of(scope)
        if path == "/v1/render":
            return await self._render(connection, body)
        if path == "/v1/tags":
            return await self._update_tag(connection, body)
        self._starts.pop(connection, None)
        connection.keep_alive_seconds = limits.KEEP_ALIVE_SECONDS
        start = await release_configuration(self._cas, _parse(body, peer, self._server_spki))
        self._starts[connection] = start
        if start.grants:
            connection.keep_alive_seconds = limits.START_KEEP_ALIVE_SECONDS
        if start.access_token_proof:
            # Of this connection alone, so nothing to keep.
            return answer(200, {**_wire(start.configuration), _PROOF: start.access_token_proof.hex()})
        if start.grants:
            # Of this start alone, as states move.
            return answer(200, _wire(start.configuration))
        ready = self._answers.get(start.configuration)
        if ready is None:
            ready = self._answers[start.configuration] = answer(200, _wire(start.configuration))
        return ready

    async def _render(self, connection: Connection, body: bytes) -> Answer:
        start = self._start(connection)
        members = _members(body, {"path", "content"})
        content = await render_file(self._cas, start, members["path"], _base64(members, "content"))
        return answer(200, {"content": base64.b64encode(content).decode("ascii")})

    async def _update_tag(self, connection: Connection, body: bytes) -> Answer:
        start = self._start(connection)
        members = _json_object(body, {"target", "old", "new"})
        target, old, new = members["target"], members["old"], members["new"]
        if not isinstance(target, str):
            raise InputError("member 'target' must be text")
        recorded = await update_tag(
            self._cas, start, target, old=None if old is None else _tag(old, "old"), new=_tag(new, "new")
        )
        return answer(200, {"recorded": recorded})

    def _start(self, connection: Connection) -> Start:
        start = self._starts.get(connection)
        if start is None:
            raise RefusedError("no configuration was released on this connection; POST /v1/configure first")
        return start

    def _challenge(self, peer: Identity) -> Answer:
        nonce = self._cas.challenges.issue(peer.key_hash, self._cas.now())
        return answer(200, {"nonce": nonce.hex(), "expires_in": int(CHALLENGE_LIFE.total_seconds())})


async def _read_body(receive: Receive, most: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise InputError("the request ended before its body did")
        body += message["body"]
        if len(body) > most:
            raise TooLargeError(f"the request body has more than {most} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _members(body: bytes, names: set[str], *, optional: frozenset[str] = frozenset()) -> dict[str, str]:
    """A JSON object with exactly these members, and maybe the optional ones, all of them text. Raises InputError."""
    members = _json_object(body, names, optional=optional)
    for name, value in members.items():
        if not isinstance(value, str):
            raise InputError(f"member {name!r} must be text")
    return members


def _json_object(body: bytes, names: set[str], *, optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A JSON object with exactly these members, and maybe the optional ones. Raises InputError."""
    try:
        members: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON") from None
    if not isinstance(members, dict) or set(members) - optional != names:
        also = f", and optionally {', '.join(sorted(optional))}" if optional else ""
        raise InputError(f"the body must be an object with exactly the members {', '.join(sorted(names))}{also}")
    return members


def _tag(value: object, name: str) -> bytes:
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise InputError(f"member {name!r} must be a tag of 32 lower-case hex digits")
    return bytes.fromhex(value)


def _parse(body: bytes, peer: Identity, server_spki: bytes) -> Request:
    """The body of `POST /v1/configure`, strictly of the documented form. Raises InputError."""
    members = _members(body, _MEMBERS, optional=frozenset({_PROOF}))
    if members["tee"] not in _TEES:
        raise InputError(f"member 'tee' is {members['tee'][:20]!r}, expected one of {', '.join(_TEES)}")
    service = _SERVICE_ID.fullmatch(members["service"])
    if service is None:
        shown = members["service"].partition("@")[0][:80]
        raise InputError(f"member 'service' is {shown!r}, expected SESSION/SERVICE or SESSION/SERVICE@OTP")
    return Request(
        session=service["session"],
        service=service["service"],
        client_spki=peer.spki,
        server_spki=server_spki,
        client_key_hash=peer.key_hash,
        nonce=_hex(members, "nonce", NONCE_BYTES, "as /v1/challenge gave it"),
        tee=members["tee"],
        evidence=_base64(members, "evidence"),
        endorsements=_endorsements(members["endorsements"]),
        one_time_password=service["password"],
        access_token_proof=_hex(members, _PROOF, _PROOF_BYTES, "or be left out") if _PROOF in members else b"",
    )


def _hex(members: dict[str, str], name: str, size: int, hint: str) -> bytes:
    try:
        value = bytes.fromhex(members[name])
    except ValueError:
        value = b""
    if len(value) != size:
        raise InputError(f"member {name!r} must have {2 * size} hex digits, {hint}")
    return value


def _base64(members: dict[str, str], name: str) -> bytes:
    try:
        return base64.b64decode(members[name], validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"member {name!r} is not base64") from None


def _endorsements(text: str) -> bytes:
    """Mostly the same as before: decoded once, and the very same object, so that whoever asks next knows it again."""
    if len(text) > MAX_REMEMBERED_CHARACTERS:
        return _base64({"endorsements": text}, "endorsements")
    return _decoded_endorsements(text)


@lru_cache(maxsize=ENDORSEMENTS_REMEMBERED)
def _decoded_endorsements(text: str) -> bytes:
    return _base64({"endorsements": text}, "endorsements")


def _wire(configuration: Configuration) -> dict[str, JsonValue]:
    """`volumes` and `main_file_system` are there only where the service has protected files."""
    protected: dict[str, JsonValue] = {}
    if configuration.volumes:
        protected["volumes"] = [_volume(volume) for volume in configuration.volumes]
    if configuration.main_file_system is not None:
        protected["main_file_system"] = _main_file_system(configuration.main_file_system)
    return {
        "session_hash": configuration.session_hash.hex(),
        "argv": [
            {"host_argument": word.position} if isinstance(word, HostArgument) else _value(word)
            for word in configuration.argv
        ],
        "environment": {
            name: {"host_variable": value.name} if isinstance(value, HostVariable) else _value(value)
            for name, value in configuration.environment
        },
        "pwd": configuration.pwd,
        "injection_files": [_file(file) for file in configuration.files],
        "file_templates": [
            {"path": template.path, "permission": template.permission} for template in configuration.templates
        ],
        **protected,
    }


def _volume(volume: MountedVolume) -> JsonValue:
    return {
        "name": volume.name,
        "path": volume.path,
        "key": volume.key.hex(),
        "tag": None if volume.tag is None else volume.tag.hex(),
        "initialise": volume.initialise,
        "files": volume.files,
        "update_policy": volume.update_policy,
    }


def _main_file_system(main: MainFileSystem) -> JsonValue:
    return {
        "path": main.path,
        "key": main.key.hex(),
        "tags": None if main.tags is None else [tag.hex() for tag in main.tags],
        "update_policy": main.update_policy,
    }


def _value(value: bytes) -> JsonValue:
    return {"value": base64.b64encode(value).decode("ascii")}


def _file(file: RenderedFile) -> JsonValue:
    return {
        "path": file.path,
        "permission": file.permission,
        "content": base64.b64encode(file.content).decode("ascii"),
    }
