"""Every bound of the two listeners, in one place."""

from __future__ import annotations

from ostiary.session.encrypted import MAX_ENCRYPTED_BYTES
from ostiary.session.signed import MAX_SIGNED_BYTES

MAX_BODY_BYTES = 1024 * 1024
"""Largest request body, on both listeners, where no other is named: a session of full size."""

MAX_SIGNED_BODY_BYTES = MAX_SIGNED_BYTES
"""Body of `/v1/signed_sessions`: a session of full size in JSON, with its signatures."""

MAX_ENCRYPTED_BODY_BYTES = MAX_ENCRYPTED_BYTES
"""Body of `/v1/encrypted_sessions`: a signed session of full size in base64."""

MAX_RENDER_BODY_BYTES = 1536 * 1024
"""Body of `/v1/render`: a file of 1 MiB in base64, with room for its path and the JSON around."""

MAX_HEADER_BYTES = 32 * 1024
"""Largest request line and headers together."""

HANDSHAKE_SECONDS = 10.0
"""From accept to the end of the TLS handshake."""

REQUEST_SECONDS = 30.0
"""From the handshake, or the first byte of a later request, to the last byte of the request."""

RESPONSE_SECONDS = 60.0
"""From the last byte of a request until the peer has taken the whole answer."""

LINGER_SECONDS = 2.0
"""How long the rest of a request that was answered early is thrown away, so that the peer comes to read the answer."""

KEEP_ALIVE_SECONDS = 15
"""Between two requests of one connection."""

START_KEEP_ALIVE_SECONDS = 24 * 3600
"""As KEEP_ALIVE_SECONDS, of the connection of a start that reports changes of its files."""

PROBE_AFTER_SECONDS = 60
PROBE_EVERY_SECONDS = 15
PROBES = 4
"""TCP keep-alive: a peer that vanished is given up two minutes after it was last heard of, and its place is free."""

MAX_CONNECTIONS = 4096
"""Open connections of one listener; fewer where the process may open fewer files."""

BACKLOG = 2048
"""Connections that the kernel may hold before we accept them."""
