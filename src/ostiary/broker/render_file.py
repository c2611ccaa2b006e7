"""Injection files whose templates lie where the program runs: the program brings the text, and receives it rendered.

Source: session language, "Injection files".
"""

from __future__ import annotations

import asyncio

from ostiary.audit import Kind, entry
from ostiary.broker.cas import Cas, log
from ostiary.broker.configure import MAX_FILES_BYTES
from ostiary.broker.denial import deny
from ostiary.broker.outside import Errands
from ostiary.broker.release import MAX_TRIES, Start
from ostiary.broker.renewal import renewal_writes
from ostiary.broker.resolution import Resolution
from ostiary.errors import ConflictError, InputError, RefusedError, ReleaseRefusedError
from ostiary.secret import Released, parse_file_template, render_file_template, require_provided, secrets_used
from ostiary.session import Template


async def render_file(cas: Cas, start: Start, path: str, data: bytes) -> bytes:
    """The file `path` of an admitted program, made of the template `data` that it read.

    Guarantees on return: the program was admitted on the connection that `start` belongs to; `path` is a file without
    content of its service, and was not rendered before; every placeholder names a secret that the image provides to its
    files, and the key of a certificate stands there only if the secret that holds the key is provided too; the session
    is still the version that admitted it, and what was imported was exported to it, when this stood durably in the
    audit log.
    Does not guarantee anything about `data`, which is the program's word, and its host's where that is not measured.

    Raises DeniedRelease (a placeholder that may not or cannot be replaced, over a bound, the session changed since),
    InputError (no such file), StoreError.
    """
    if path not in start.waiting:
        raise InputError(f"file {path!r} is no template of this service, or was rendered on this connection before")
    start.waiting.remove(path)
    try:
        template = parse_file_template(data, path)
        errands = cas.outside.errands()
        for _ in range(MAX_TRIES):
            await cas.sessions.prepare(start.stored.parsed.session.name)
            try:
                return await _render(cas, start, path, template, errands)
            except ConflictError:
                errands.forget()
        raise ReleaseRefusedError(f"what file {path!r} rests on changes faster than it can be rendered", _AGAIN)
    except RefusedError as refusal:
        raise await deny(cas, start.attempt("file"), refusal) from refusal


_AGAIN = "start the program again"


async def _render(cas: Cas, start: Start, path: str, template: Template, errands: Errands) -> bytes:
    session = start.stored.parsed.session
    current = cas.sessions.current(session.name)
    if current is None or current.record != start.stored.record:
        raise ReleaseRefusedError(f"session {session.name} was updated since this program was admitted", _AGAIN)
    current.require_values()
    image = next(image for image in session.images if image.name == start.service.image_name)
    wanted = secrets_used(session, (template,))
    provided = image.provide_secrets
    if provided is not None:
        # Before any value is looked at, as an import that is not provided must not even be tried.
        require_provided(template, path, current.secrets, provided)

    def make() -> tuple[Resolution, dict[str, Released]]:
        resolution = Resolution(cas.sessions, random=cas.random, now=cas.now(), errands=errands)
        return resolution, resolution.released(current, wanted, software_identity=start.software_identity)

    resolution, values = await errands.with_outside(make)
    if provided is not None:
        values = resolution.provided(current, values, provided)
    content = render_file_template(template, path, values)
    if len(content) > start.room_bytes:
        raise ReleaseRefusedError(f"with file {path!r}, all injection files together are over {MAX_FILES_BYTES} bytes")
    if wanted:
        leaf = entry(
            Kind.SERVICE_FILE_RENDERED, {"session": session.name, "service": start.service.name}, cas.now(), cas.random
        )
        writes = await renewal_writes(cas, resolution.renewals)
        await asyncio.wrap_future(cas.store.commit(writes, leaf, expect=resolution.rests_on))
    start.room_bytes -= len(content)
    log.info("rendered a file for %s", start.service_id)
    return content
