"""The REST API that people and existing clients use, on 8081. Decides nothing: each route calls one use case."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ostiary import __version__
from ostiary.board import Caller
from ostiary.broker.cas import Cas
from ostiary.broker.children import list_sessions
from ostiary.broker.namespace import ROOT
from ostiary.broker.public_values import read_public_value, read_public_values
from ostiary.broker.read import parse_hash, read_session, read_session_hash
from ostiary.broker.read_denial import DEFAULT_LISTED, DenialDesk
from ostiary.broker.session_encryption import public_encryption_key
from ostiary.broker.signed_upload import upload_encrypted_session, upload_signed_session
from ostiary.broker.upload import Uploaded, upload_session
from ostiary.errors import InputError, OstiaryError, TooLargeError
from ostiary.server import limits
from ostiary.server.answers import Answer, answer, error_answer, refusal
from ostiary.server.identity import Identity
from ostiary.server.openapi import openapi_document
from ostiary.server.proposal_api import get_proposal, get_proposals, post_decision, post_proposal
from ostiary.server.tls import peer_of

_log = logging.getLogger("ostiary.server.client_api")

_Handler = Callable[[Cas, Request], Awaitable[Answer]]


def client_api(cas: Cas) -> Starlette:
    """The application behind the client listener."""
    denials = _Denials(DenialDesk(cas))
    application = Starlette(
        routes=[
            _route(cas, "/session", "POST", _upload),
            _route(cas, "/v1/sessions", "POST", _upload),
            _route(cas, "/v1/signed_sessions", "PUT", _upload_signed),
            _route(cas, "/v1/encrypted_sessions", "PUT", _upload_encrypted),
            _route(cas, "/session", "GET", _no_name),
            _route(cas, "/session/", "GET", _no_name),
            _route(cas, "/session/{name:path}", "GET", _read),
            _route(cas, "/v1/sessions", "GET", _list),
            _route(cas, "/v1/sessions/{name:path}", "GET", _read),
            _route(cas, "/v1/session_hashes/{name:path}", "GET", _read_hash),
            _route(cas, "/v1/session_encryption_key", "GET", _encryption_key),
            _route(cas, "/v1/denials", "GET", denials.listed),
            _route(cas, "/v1/denials/{denial}", "GET", denials.read),
            _route(cas, "/v1/proposals", "POST", _propose),
            _route(cas, "/v1/proposals", "GET", _proposals),
            _route(cas, "/v1/proposals/{proposal}", "GET", _proposal),
            _route(cas, "/v1/proposals/{proposal}/decisions", "POST", _decide),
            _route(cas, "/v1/values/{selector:path}", "GET", _values),
            _route(cas, "/v1/version", "GET", _version),
            _route(cas, "/v1/openapi.json", "GET", _openapi),
        ],
        exception_handlers={HTTPException: _no_route},
    )
    application.router.redirect_slashes = False
    return application


def _route(cas: Cas, path: str, method: str, handler: _Handler) -> Route:
    async def endpoint(request: Request) -> Response:
        return _response(await _guarded(cas, request, handler))

    route = Route(path, endpoint, methods=[method])
    # HEAD is not offered: clients rely on 405.
    route.methods = {method}
    return route


async def _guarded(cas: Cas, request: Request, handler: _Handler) -> Answer:
    try:
        return await handler(cas, request)
    except OstiaryError as error:
        told = error_answer(error)
        if told.status >= 500:
            _log.error("%s %s: %s", request.method, request.url.path, error)
        return told
    except ClientDisconnect:
        return refusal(400, "the request ended before its body did")
    except asyncio.CancelledError:
        return refusal(503, "the service is ending; read again later whether the request was carried out")
    except Exception:
        _log.exception("%s %s failed", request.method, request.url.path)
        return refusal(500, "internal error, of which the service's log has the details; read again before another try")


def _response(told: Answer) -> Response:
    headers = {"connection": "close"} if told.status == 413 else None
    return Response(told.body, status_code=told.status, media_type="application/json", headers=headers)


_ENCLAVE_PATHS = ("/v1/challenge", "/v1/configure")
_NO_SUCH_PATH = "no such path; GET /v1/openapi.json lists all"
_OTHER_LISTENER = "this is the client API; programs attest at the enclave API, by default on port 18765"


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = {
        404: _NO_SUCH_PATH if request.url.path not in _ENCLAVE_PATHS else _OTHER_LISTENER,
        405: f"{request.method} is not possible here; GET /v1/openapi.json lists what is",
    }.get(status, "the request cannot be answered")
    return _response(refusal(status, sentence))


async def _upload(cas: Cas, request: Request) -> Answer:
    return _uploaded(await upload_session(cas, await read_body(request), _caller(request)))


async def _upload_signed(cas: Cas, request: Request) -> Answer:
    return _uploaded(await upload_signed_session(cas, await read_body(request, limits.MAX_SIGNED_BODY_BYTES)))


async def _upload_encrypted(cas: Cas, request: Request) -> Answer:
    return _uploaded(await upload_encrypted_session(cas, await read_body(request, limits.MAX_ENCRYPTED_BODY_BYTES)))


def _uploaded(uploaded: Uploaded) -> Answer:
    return answer(
        201,
        {
            "hash": uploaded.session_hash.hex(),
            "warnings": [[str(warning)] for warning in uploaded.warnings],
        },
    )


async def _read(cas: Cas, request: Request) -> Answer:
    name = _session_name(request.path_params["name"])
    try:
        wanted = request.query_params.get("hash")
        session = await read_session(
            cas,
            name,
            session_hash=None if wanted is None else parse_hash(wanted),
            caller=_caller(request),
        )
    except OstiaryError as error:
        return error_answer(error, doing=f"Failed to read session '{name}'")
    return answer(200, {"hash": session.hash.hex(), "session": session.text})


async def _list(cas: Cas, request: Request) -> Answer:
    query = request.query_params
    start = query.get("from", "0")
    namespace = _session_name(query.get("namespace", "")) or ROOT
    try:
        listed = await list_sessions(
            cas,
            namespace,
            start=int(start) if start.isascii() and start.isdigit() and len(start) <= _MAX_LIMIT_DIGITS else -1,
            caller=_caller(request),
        )
    except OstiaryError as error:
        return error_answer(error, doing=f"Failed to list the sessions of namespace '{namespace}'")
    return answer(200, {"sessions": list(listed.sessions), "next": listed.next})


async def _read_hash(cas: Cas, request: Request) -> Answer:
    name = _session_name(request.path_params["name"])
    try:
        session_hash = await read_session_hash(cas, name, caller=_caller(request))
    except OstiaryError as error:
        return error_answer(error, doing=f"Failed to read the hash of session '{name}'")
    return answer(200, {"hash": session_hash.hex()})


class _Denials:
    """The routes of denials. The list names its session in the query, as a session's name may have slashes."""

    def __init__(self, desk: DenialDesk) -> None:
        self._desk = desk

    async def read(self, _cas: Cas, request: Request) -> Answer:
        return answer(200, await self._desk.read(request.path_params["denial"], caller=_caller(request)))

    async def listed(self, _cas: Cas, request: Request) -> Answer:
        query = request.query_params
        if "session" not in query:
            raise InputError("the query names no session; write ?session=NAME")
        limit = query.get("limit", str(DEFAULT_LISTED))
        found = await self._desk.listed(
            _session_name(query["session"]),
            before=query.get("before"),
            limit=int(limit) if limit.isascii() and limit.isdigit() and len(limit) <= _MAX_LIMIT_DIGITS else 0,
            caller=_caller(request),
        )
        return answer(200, {"denials": found})


_MAX_LIMIT_DIGITS = 6


async def _propose(cas: Cas, request: Request) -> Answer:
    return await post_proposal(cas, await read_body(request, limits.MAX_SIGNED_BODY_BYTES), _caller(request))


async def _proposals(cas: Cas, request: Request) -> Answer:
    session = request.query_params.get("session")
    return await get_proposals(cas, request, _caller(request), None if session is None else _session_name(session))


async def _proposal(cas: Cas, request: Request) -> Answer:
    return await get_proposal(cas, request.path_params["proposal"], _caller(request))


async def _decide(cas: Cas, request: Request) -> Answer:
    return await post_decision(cas, request.path_params["proposal"], await read_body(request))


async def _encryption_key(cas: Cas, _request: Request) -> Answer:
    return answer(200, {"session_encryption_key": public_encryption_key(cas.store).hex()})


def _session_name(text: str) -> str:
    """A name may have a leading slash, which means nothing; slashes alone are the root namespace."""
    return text.lstrip("/") or text[:1]


def _caller(request: Request) -> Caller | None:
    peer = peer_of(request.scope)
    if not isinstance(peer, Identity):
        return None
    return Caller(certificate=peer.certificate, key_hash=peer.key_hash, key_bits_hash=peer.key_bits_hash)


async def _no_name(_cas: Cas, _request: Request) -> Answer:
    return refusal(404, "no session is named; GET /session/NAME reads one, POST /session creates or updates one")


async def _values(cas: Cas, request: Request) -> Answer:
    selector = _parse_selector(unquote(request.path_params["selector"]))
    name = _session_name(selector["session"])
    wanted = selector.get("session_hash")
    session_hash = None if wanted is None else parse_hash(wanted)
    if "secret" in selector:
        return answer(200, await read_public_value(cas, name, selector["secret"], session_hash=session_hash))
    return answer(200, {"values": await read_public_values(cas, name, session_hash=session_hash)})


_SELECTOR_FIELDS = ("session", "session_hash", "secret")


def _parse_selector(text: str) -> dict[str, str]:
    """`session=NAME[,session_hash=HASH][,secret=SECRET]`, as it stands in the path. Raises InputError."""
    selector: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in _SELECTOR_FIELDS or not equals or not value or key in selector:
            raise InputError(
                f"after /v1/values/ there is {part[:80]!r}, expected session=NAME[,session_hash=HASH][,secret=SECRET]"
            )
        selector[key] = value
    if "session" not in selector:
        raise InputError("the path after /v1/values/ names no session: session=NAME is missing")
    return selector


async def _version(_cas: Cas, _request: Request) -> Answer:
    return answer(200, {"version": __version__})


async def _openapi(_cas: Cas, _request: Request) -> Answer:
    return answer(200, openapi_document())


async def read_body(request: Request, most: int = limits.MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises TooLargeError as soon as it passes `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLargeError(f"the request body has more than {most} bytes; make it smaller")
    return bytes(body)
