"""A witness over HTTP: C2SP tlog-witness. Decides nothing.

POST /add-checkpoint                    cosign; the submission prefix is the server's root
GET  /<SHA-256 of an origin>/checkpoint the checkpoint cosigned last; the monitoring prefix is the same
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ostiary.audit.submission import MAX_SUBMISSION_BYTES, SIZE_TYPE
from ostiary.errors import (
    InconsistentLogError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OstiaryError,
    OtherSizeError,
    TooLargeError,
)
from ostiary.witness import Witness

_log = logging.getLogger("ostiary.server.witness_api")

_STATUS: tuple[tuple[type[OstiaryError], int], ...] = (
    (TooLargeError, 413),
    (InputError, 400),
    (NotFoundError, 404),
    (NotAuthorizedError, 403),
    (InconsistentLogError, 422),
)
_TEXT = "text/plain; charset=utf-8"


def witness_api(witness: Witness) -> Starlette:
    """The application of a witness."""

    async def add(request: Request) -> Response:
        body = await _read_body(request)
        line = await asyncio.to_thread(witness.add_checkpoint, body)
        return Response(line, media_type=_TEXT)

    async def show(request: Request) -> Response:
        note = await asyncio.to_thread(witness.checkpoint, request.path_params["origin"])
        return Response(note, media_type=_TEXT)

    application = Starlette(
        routes=[
            Route("/add-checkpoint", _guarded(add), methods=["POST"]),
            Route("/{origin}/checkpoint", _guarded(show), methods=["GET"]),
        ]
    )
    application.router.redirect_slashes = False
    return application


def _guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except OtherSizeError as error:
            # As a header: starlette would add a charset to a media type of text.
            return Response(f"{error.size}\n", 409, {"content-type": SIZE_TYPE})
        except OstiaryError as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response("the request ended before its body did\n", 400, media_type=_TEXT)

    return endpoint


def _refusal(error: OstiaryError) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        _log.error("%s", error)
        return Response("the witness cannot answer now; its log says why\n", status, media_type=_TEXT)
    if isinstance(error, InconsistentLogError):
        # Two histories under one key: the log's holder must answer for that, whoever it is.
        _log.warning("%s", error)
    headers = {"connection": "close"} if status == 413 else None
    return Response(f"{error}\n", status, headers, media_type=_TEXT)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_SUBMISSION_BYTES:
            raise TooLargeError(f"a submission of more than {MAX_SUBMISSION_BYTES} bytes")
    return bytes(body)
