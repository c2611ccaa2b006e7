"""The TLS connection to the CAS: an ephemeral key, the keys of both ends, one request after another."""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from dataclasses import dataclass, field

from ostiary.errors import ConfigurationError, InputError, OutsideError
from ostiary.launcher.libcrypto import Libcrypto, load_libcrypto

CONNECT_SECONDS = 10.0
"""For each address tried, and again for the TLS handshake."""
ANSWER_SECONDS = 60.0
"""From the first byte of a request to the last of its answer."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Base64 of 8 MiB of files and 1 MiB of arguments and environment, with room for the JSON around them."""
MAX_REQUEST_BYTES = 1536 * 1024
"""Base64 of a template of 1 MiB, with room for its path and the JSON around."""
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 8.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP status and the body that came with it."""

    status: int
    body: bytes = field(repr=False)


class _Limited(io.RawIOBase):
    """What arrives on a stream, for a reader who must have all of it before `deadline` on the monotonic clock."""

    def __init__(self, stream: ssl.SSLSocket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._stream.settimeout(left)
        return self._stream.recv_into(buffer)


class _LimitedStream:
    """A TLS stream as `http.client` uses one, with ANSWER_SECONDS for each request and its whole answer."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self._deadline = 0.0

    def begin(self) -> None:
        """A request begins: its time starts to run."""
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self._stream.settimeout(ANSWER_SECONDS)

    def sendall(self, data: bytes) -> None:
        self._stream.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Limited(self._stream, self._deadline))

    def close(self) -> None:
        # `http.client` closes its side before it reads an answer that ends the connection.
        return


class Connection:
    """An open TLS connection. client_spki, server_spki: DER SubjectPublicKeyInfo of the certificates in its handshake.

    After an error of `post` the connection is of no more use.
    """

    def __init__(self, stream: ssl.SSLSocket, *, host: str, port: int, client_spki: bytes, server_spki: bytes) -> None:
        self._http = http.client.HTTPConnection(host, port)
        self._stream = stream
        self._limited = _LimitedStream(stream)
        self._http.sock = self._limited
        # Never connect anew: it would be another connection, without TLS.
        self._http.auto_open = 0
        self.client_spki = client_spki
        self.server_spki = server_spki

    def post(self, path: str, body: bytes) -> Answer:
        """Send one `POST` with a JSON body, or an empty one, and read the answer.

        Raises OutsideError: no answer within ANSWER_SECONDS, connection closed or broken, body over MAX_REQUEST_BYTES.
        Raises InputError for an answer that is no HTTP, or over MAX_ANSWER_BYTES.
        """
        if len(body) > MAX_REQUEST_BYTES:
            raise OutsideError(f"the request has {len(body)} bytes, the CAS takes {MAX_REQUEST_BYTES}")
        try:
            return self._exchange(path, body)
        except TimeoutError:
            raise OutsideError(f"the CAS did not answer {path} within {ANSWER_SECONDS:.0f} s") from None
        except (http.client.NotConnected, http.client.RemoteDisconnected, http.client.IncompleteRead):
            raise OutsideError("the CAS closed the connection before its answer was complete") from None
        except http.client.HTTPException as error:
            raise InputError(
                "the CAS did not answer in HTTP; is this a CAS's enclave port?", type(error).__name__
            ) from None
        except OSError as error:
            raise OutsideError(f"the connection to the CAS broke during {path}", _reason(error)) from None

    def _exchange(self, path: str, body: bytes) -> Answer:
        self._limited.begin()
        self._http.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._http.getresponse()
        content = response.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise InputError(f"the CAS sent an answer of more than {MAX_ANSWER_BYTES} bytes")
        # With a size, http.client takes a body that ends early for a whole one.
        if response.length or not response.isclosed():
            raise OutsideError("the CAS closed the connection before its answer was complete")
        return Answer(status=response.status, body=content)

    def close(self) -> None:
        """Close the socket; the service learns that no more requests come."""
        self._stream.close()


def connect(host: str, port: int, *, cas_ca: str | None, retries: int) -> Connection:
    """Open a connection with a fresh key. TLS 1.2 or later.

    cas_ca: file of PEM certificates. The server's chain must lead to one of them, or be one of them; names in it are
    not compared with `host`, for the anchor is the identity and addresses change. None: any server is accepted.
    `retries`: how often a connection that fails is tried again, after 0.5 s, 1 s, 2 s, … at most 8 s.
    Raises OutsideError when no connection comes about or the server is not trusted, ConfigurationError for `cas_ca`.
    """
    context = _trusting(cas_ca)
    libcrypto = load_libcrypto()
    client_spki = _load_fresh_identity(context, libcrypto)
    stream = _connect_patiently(context, host, port, retries)
    certificate = stream.getpeercert(binary_form=True)
    if certificate is None:
        raise OutsideError(f"the server at {_authority(host, port)} showed no certificate")
    return Connection(
        stream,
        host=host,
        port=port,
        client_spki=client_spki,
        server_spki=libcrypto.certificate_spki(certificate),
    )


def _trusting(cas_ca: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    if cas_ca is None:
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cafile=cas_ca)
    except OSError as error:
        raise ConfigurationError(f"--cas-ca {cas_ca}: no PEM certificates can be read", _reason(error)) from None
    return context


def _load_fresh_identity(context: ssl.SSLContext, libcrypto: Libcrypto) -> bytes:
    """Give the context a fresh key and certificate, by way of memory that has no name. Returns the SPKI."""
    try:
        fd = os.memfd_create("ostiary-identity", os.MFD_CLOEXEC)
    except OSError as error:
        raise OutsideError("the kernel gives no memory for the fresh TLS key (memfd_create)", _reason(error)) from None
    try:
        spki = libcrypto.write_identity(fd)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    except OSError as error:
        raise OutsideError("the fresh TLS key cannot be loaded; is /proc mounted?", _reason(error)) from None
    finally:
        os.close(fd)
    return spki


def _connect_patiently(context: ssl.SSLContext, host: str, port: int, retries: int) -> ssl.SSLSocket:
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            return _connect_once(context, host, port)
        except ssl.SSLCertVerificationError as error:
            raise OutsideError(
                f"the server at {_authority(host, port)} is not the CAS that --cas-ca names", error.verify_message
            ) from None
        except OSError as error:
            if retries == 0 or _is_final(error):
                raise OutsideError(f"cannot connect to the CAS at {_authority(host, port)}", _reason(error)) from None
        time.sleep(wait)
        wait = min(2 * wait, MAX_WAIT_SECONDS)
        retries -= 1


def _connect_once(context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    name = _wire_name(host)
    plain = socket.create_connection((name, port), CONNECT_SECONDS)  # type: ignore[arg-type]
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
    except BaseException:
        plain.close()
        raise


def _wire_name(host: str) -> bytes:
    """The host in bytes. As text it would make `socket` and `ssl` load the IDNA codec, which few names need."""
    try:
        return host.encode("ascii")
    except UnicodeEncodeError:
        try:
            return host.encode("idna")
        except UnicodeError:
            raise OutsideError(f"{host!r} is not a host name") from None


def _is_final(error: OSError) -> bool:
    """Whether another try would end the same way: the other end speaks, but not TLS as we do."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
