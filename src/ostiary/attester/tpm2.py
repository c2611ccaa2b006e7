"""The few TPM 2.0 commands that a quote or an enrolment takes, as bytes to and from the device. Standard library only.

A command is `tag u16, size u32, code u32`, handles, for tag SESSIONS an authorisation area `size u32` with one session
for each handle that needs one, parameters. An answer is `tag, size, code` (0: success), a handle if the command makes
an object, for tag SESSIONS the size of the parameters u32, parameters, and sessions, which are not looked at. Integers
are big-endian. Every entity that is used here has the empty password, so no password passes. A credential passes in the
clear; it is worth nothing but the proof that this TPM opened it.

Source: TCG, TPM 2.0 Library, part 1, "Command/Response Structure"; part 3 for each command.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import time

from ostiary.errors import OutsideError

MAX_ANSWER_BYTES = 4096
TIMEOUT_SECONDS = 60.0
"""Of one command, where the TPM is behind a socket; the kernel has limits of its own."""
MAX_NV_BYTES = 16 * 1024
NV_CHUNK_BYTES = 512
MAX_PCR_READS = 64
MAX_TRIES = 500
"""Of one command that the TPM asks to be sent again, such as while it tests itself."""
TRY_AGAIN_SECONDS = 0.01

SHA256 = 0x000B
ENDORSEMENT = 0x4000000B
ACTIVATE = "TPM2_ActivateCredential"
"""The name of this command, in `TpmError`."""
_OWNER = 0x40000001
_NO_HANDLE = 0x40000007

_NO_SESSIONS = 0x8001
_SESSIONS = 0x8002
_HEADER = struct.Struct(">HII")
# TPM_RS_PW with an empty nonce, no attributes and an empty password.
_EMPTY_PASSWORD = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
_NULL = 0x0010

_POLICY_SESSION = 1
_CONTINUE_SESSION = 1
_NONCE_BYTES = 16

_ACTIVATE_CREDENTIAL = 0x00000147
_NV_READ = 0x0000014E
_POLICY_SECRET = 0x00000151
_QUOTE = 0x00000158
_FLUSH_CONTEXT = 0x00000165
_NV_READ_PUBLIC = 0x00000169
_CREATE_PRIMARY = 0x00000131
_READ_PUBLIC = 0x00000173
_START_AUTH_SESSION = 0x00000176
_PCR_READ = 0x0000017E

_TRY_AGAIN = (0x908, 0x90A, 0x922)
"""TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY: nothing was done yet."""
_NV_AUTHREAD = 1 << 18
_NOT_THERE = (0x18B, 0x28B)
"""TPM_RC_HANDLE of the first or second handle: nothing has this handle."""


class TpmError(OutsideError):
    """The TPM refused a command. command: its name. code: TPM_RC."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"the TPM refuses {command} with code {code:#05x}")
        self.command = command
        self.code = code

    @property
    def not_there(self) -> bool:
        """Nothing has the handle or index that was asked for."""
        return self.code in _NOT_THERE


class Tpm:
    """An open TPM: a character device such as /dev/tpmrm0, or the Unix socket of a simulator, which speaks the same.

    A context manager; closes the device at its end. Every method raises OutsideError when the TPM cannot be reached or
    answers in another form, and TpmError when it refuses.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._device = -1
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                self._socket.settimeout(TIMEOUT_SECONDS)
                self._socket.connect(path)
            else:
                self._device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise self._unreachable(error) from error

    def __enter__(self) -> Tpm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the device."""
        if self._socket is not None:
            self._socket.close()
        elif self._device >= 0:
            os.close(self._device)
            self._device = -1

    def create_primary(self, hierarchy: int, template: bytes) -> tuple[int, bytes]:
        """TPM2_CreatePrimary: a primary key of a TPMT_PUBLIC template, the same for the same template.

        Answers its handle, which the caller flushes, and its TPMT_PUBLIC.
        """
        # inSensitive is empty, outsideInfo too, and no PCR is recorded.
        parameters = struct.pack(">HHH", 4, 0, 0) + _sized(template) + _sized(b"") + struct.pack(">I", 0)
        answer = self._command("TPM2_CreatePrimary", _CREATE_PRIMARY, [hierarchy], parameters)
        handle = answer.number(4)
        answer.number(4)
        return handle, answer.sized()

    def read_public(self, handle: int) -> bytes:
        """TPM2_ReadPublic: the TPMT_PUBLIC of a key."""
        return self._command("TPM2_ReadPublic", _READ_PUBLIC, [handle], b"", sessions=False).sized()

    def flush(self, handle: int) -> None:
        """TPM2_FlushContext: forget a key that `create_primary` made, or a session."""
        self._command("TPM2_FlushContext", _FLUSH_CONTEXT, [], struct.pack(">I", handle), sessions=False)

    def quote(self, key: int, nonce: bytes, bank: int, pcrs: tuple[int, ...]) -> tuple[bytes, bytes]:
        """TPM2_Quote with the scheme of the key: TPMS_ATTEST and TPMT_SIGNATURE."""
        parameters = _sized(nonce) + struct.pack(">H", _NULL) + _selection(bank, pcrs)
        answer = self._command("TPM2_Quote", _QUOTE, [key], parameters)
        size = answer.number(4)
        attest = answer.sized()
        return attest, answer.take(size - 2 - len(attest))

    def activate_credential(self, ak: int, ek: int, credential: bytes, encrypted_secret: bytes) -> bytes:
        """TPM2_ActivateCredential: what was hidden for the key at `ek` and the name of the key at `ak`.

        credential, encrypted_secret: contents of a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET. The key at `ek` has
        the policy of the TCG's EK templates: whoever has the authorization of the endorsement hierarchy may use it.
        """
        # Neither salted nor bound, and without a password: the nonce protects nothing.
        start = struct.pack(">H", _NONCE_BYTES) + os.urandom(_NONCE_BYTES)
        start += _sized(b"") + struct.pack(">BHH", _POLICY_SESSION, _NULL, SHA256)
        answer = self._command(
            "TPM2_StartAuthSession", _START_AUTH_SESSION, [_NO_HANDLE, _NO_HANDLE], start, sessions=False
        )
        session = answer.number(4)
        try:
            # nonceTPM, cpHashA and policyRef are empty; it does not expire.
            unlimited = _sized(b"") * 3 + struct.pack(">i", 0)
            self._command("TPM2_PolicySecret", _POLICY_SECRET, [ENDORSEMENT, session], unlimited)
            answer = self._command(
                ACTIVATE,
                _ACTIVATE_CREDENTIAL,
                [ak, ek],
                _sized(credential) + _sized(encrypted_secret),
                authorization=_EMPTY_PASSWORD + struct.pack(">IHBH", session, 0, _CONTINUE_SESSION, 0),
            )
            answer.number(4)
            return answer.sized()
        finally:
            self.flush(session)

    def read_pcrs(self, bank: int, pcrs: tuple[int, ...]) -> dict[int, bytes]:
        """TPM2_PCR_Read, as often as it takes: the values of PCRs of a bank. Raises OutsideError without that bank."""
        values: dict[int, bytes] = {}
        for _ in range(MAX_PCR_READS):
            left = tuple(pcr for pcr in pcrs if pcr not in values)
            if not left:
                return values
            answer = self._command("TPM2_PCR_Read", _PCR_READ, [], _selection(bank, left), sessions=False)
            answer.number(4)
            read = _selected(answer)
            digests = [answer.sized() for _ in range(answer.number(4))]
            if not read or len(read) != len(digests):
                break
            values.update(zip(read, digests, strict=True))
        raise OutsideError(f"the TPM at {self._path} does not have all of the PCRs {list(pcrs)} in bank {bank:#06x}")

    def nv_read(self, index: int) -> bytes | None:
        """TPM2_NV_ReadPublic and TPM2_NV_Read: the data of an index that needs no password. None: there is none."""
        try:
            public = self._command("TPM2_NV_ReadPublic", _NV_READ_PUBLIC, [index], b"", sessions=False)
        except TpmError as error:
            if error.not_there:
                return None
            raise
        area = _Answer(public.sized(), self._path)
        area.number(6)
        attributes = area.number(4)
        area.sized()
        size = area.number(2)
        if size > MAX_NV_BYTES:
            raise OutsideError(f"NV index {index:#x} has {size} bytes, expected at most {MAX_NV_BYTES}")
        data = b""
        authority = index if attributes & _NV_AUTHREAD else _OWNER
        while len(data) < size:
            parameters = struct.pack(">HH", min(NV_CHUNK_BYTES, size - len(data)), len(data))
            answer = self._command("TPM2_NV_Read", _NV_READ, [authority, index], parameters)
            answer.number(4)
            chunk = answer.sized()
            if not chunk:
                raise answer.not_understood()
            data += chunk
        return data

    def _command(
        self,
        name: str,
        code: int,
        handles: list[int],
        parameters: bytes,
        *,
        sessions: bool = True,
        authorization: bytes = _EMPTY_PASSWORD,
    ) -> _Answer:
        body = b"".join(struct.pack(">I", one) for one in handles)
        if sessions:
            body += struct.pack(">I", len(authorization)) + authorization
        body += parameters
        command = _HEADER.pack(_SESSIONS if sessions else _NO_SESSIONS, _HEADER.size + len(body), code) + body
        for _ in range(MAX_TRIES):
            raw = self._exchange(command)
            if len(raw) < _HEADER.size:
                raise _Answer(raw, self._path).not_understood()
            _, size, result = _HEADER.unpack(raw[: _HEADER.size])
            if result not in _TRY_AGAIN:
                break
            time.sleep(TRY_AGAIN_SECONDS)
        if result:
            raise TpmError(name, result)
        if size != len(raw):
            raise _Answer(raw, self._path).not_understood()
        return _Answer(raw[_HEADER.size :], self._path)

    def _exchange(self, command: bytes) -> bytes:
        try:
            if self._socket is None:
                os.write(self._device, command)
                return os.read(self._device, MAX_ANSWER_BYTES)
            self._socket.sendall(command)
            return _read_answer(self._socket)
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> OutsideError:
        return OutsideError(f"no TPM answers at {self._path}: {error.strerror or str(error) or type(error).__name__}")


class _Answer:
    """Reads the parameters of an answer. Raises OutsideError where they end too early."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data = data
        self._path = path

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data):
            raise self.not_understood()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def not_understood(self) -> OutsideError:
        return OutsideError(f"what answers at {self._path} is no TPM 2.0: its answer is not of the form expected")


def _read_answer(connection: socket.socket) -> bytes:
    """As many bytes as the header announces, or as there came before the simulator closed."""
    answer = b""
    expected = _HEADER.size
    while len(answer) < expected:
        more = connection.recv(MAX_ANSWER_BYTES)
        if not more:
            break
        answer += more
        if len(answer) >= _HEADER.size:
            expected = min(_HEADER.unpack(answer[: _HEADER.size])[1], MAX_ANSWER_BYTES)
    return answer


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _selection(bank: int, pcrs: tuple[int, ...]) -> bytes:
    """TPML_PCR_SELECTION of one bank and PCRs 0 to 23."""
    bits = sum(1 << pcr for pcr in set(pcrs))
    return struct.pack(">IHB", 1, bank, 3) + bits.to_bytes(3, "little")


def _selected(answer: _Answer) -> list[int]:
    """The PCRs of a TPML_PCR_SELECTION, of all banks together."""
    found: list[int] = []
    for _ in range(answer.number(4)):
        answer.number(2)
        size = answer.number(1)
        bits = int.from_bytes(answer.take(size), "little")
        found += [pcr for pcr in range(8 * size) if bits >> pcr & 1]
    return found
