"""The two APIs of one service, ready to be listened on."""

from __future__ import annotations

import socket

from ostiary.broker.cas import Cas
from ostiary.broker.identity import ServerIdentity
from ostiary.server.client_api import client_api
from ostiary.server.enclave_api import EnclaveApi
from ostiary.server.listen import Listener
from ostiary.server.tls import server_context


def make_listeners(
    cas: Cas, identity: ServerIdentity, *, client: socket.socket, enclave: socket.socket
) -> tuple[Listener, Listener]:
    """The client API and the enclave API behind two bound sockets, both showing the same TLS certificate."""
    context = server_context(identity.key, identity.chain)
    return (
        Listener(app=client_api(cas), socket=client, context=context),
        Listener(app=EnclaveApi(cas, server_spki=identity.spki), socket=enclave, context=context),
    )
