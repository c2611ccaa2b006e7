"""Asks the Nitro Security Module (NSM) of this enclave for an attestation document. Standard library only.

The module takes one CBOR message (RFC 8949) by ioctl and answers with one. Two are needed, each of a single form, so
they stand here byte by byte. A request has 109 bytes, {"Attestation": {"user_data": …, "nonce": null, "public_key":
null}}::

    0   a1                      map of 1            90  65                text of 5
    1   6b "Attestation"        text of 11          91  "nonce"
    13  a3                      map of 3            96  f6                null
    14  69 "user_data"          text of 9           97  6a "public_key"   text of 10
    24  58 40                   64 bytes            108 f6                null
    26  the report data

An answer, {"Attestation": {"document": …}} or {"Error": "…"}::

    0   a1                      map of 1            0   a1                map of 1
    1   6b "Attestation"        text of 11          1   65 "Error"        text of 5
    13  a1                      map of 1            7   60 + n            text of n < 24
    14  68 "document"           text of 8           8   the name of the error
    23  40 + n, 58 n, or 59 n n bytes, n in the lower 5 bits, in one byte, or in two (big endian)
    24, 25 or 26  the document: COSE_Sign1, see `evidence.nitro.layout`

Source: Linux include/uapi/linux/nsm.h and drivers/misc/nsm.c; aws-nitro-enclaves-nsm-api, src/api/mod.rs.
"""

from __future__ import annotations

import os
from array import array
from fcntl import ioctl as system_ioctl
from struct import pack, unpack

from ostiary.attester.binding import REPORT_DATA_BYTES
from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program
from ostiary.errors import OutsideError

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = "/dev/nsm"
IOCTL_RAW = 0xC0200A00
"""_IOWR(0x0A, 0, struct nsm_raw): read and write, 32 bytes."""
MAX_ANSWER_BYTES = 0x3000
"""NSM_RESPONSE_MAX_SIZE: the driver cuts what is longer."""

_RAW = "=QQQQ"
"""struct nsm_raw: address and length in bytes of the request, address and room of the answer. The driver puts the
length of the answer into the last.
"""
_BEFORE_DATA = b"\xa1\x6bAttestation\xa3\x69user_data\x58" + bytes((REPORT_DATA_BYTES,))
_AFTER_DATA = b"\x65nonce\xf6\x6apublic_key\xf6"
_DOCUMENT = b"\xa1\x6bAttestation\xa1\x68document"
_ERROR = b"\xa1\x65Error"


class NitroAttester:
    """The NSM behind the device node `device`. ioctl: as `fcntl.ioctl` with a buffer that it changes."""

    def __init__(self, device: str = DEVICE, *, ioctl: Callable[[int, int, bytearray], int] = system_ioctl) -> None:
        self._device = device
        self._ioctl = ioctl

    def unavailable(self) -> str | None:
        """Why no document can be had, in one line; None if one can be asked for."""
        try:
            os.close(self._open())
        except OSError as error:
            return f"the NSM device {self._device} cannot be opened: {error.strerror}"
        return None

    def attest(self, report_data: bytes, program: Program | None) -> Evidence:  # noqa: ARG002 - the image is measured
        """An attestation document whose user_data are 64 bytes of `report_data`. It brings its certificates with it.

        `program` is not looked at: the enclave's image file was measured, with all that is in it.
        Raises OutsideError: no NSM, or it refuses, or does not answer in the form above.
        """
        document = parse_answer(self._ask(attestation_request(report_data)))
        return Evidence(tee="nitro", evidence=document, endorsements=b"")

    def _ask(self, request: bytes) -> bytes:
        sent, answer = array("B", request), array("B", bytes(MAX_ANSWER_BYTES))
        message = bytearray(pack(_RAW, sent.buffer_info()[0], len(sent), answer.buffer_info()[0], len(answer)))
        try:
            device = self._open()
            try:
                self._ioctl(device, IOCTL_RAW, message)
            finally:
                os.close(device)
        except OSError as error:
            raise OutsideError(
                f"the NSM device {self._device} gives no attestation document: {error.strerror or error}",
                "only a Nitro enclave has one; outside, name another attester",
            ) from error
        return answer.tobytes()[: unpack(_RAW, message)[3]]

    def _open(self) -> int:
        return os.open(self._device, os.O_RDWR | os.O_CLOEXEC)


def attestation_request(report_data: bytes) -> bytes:
    """The request above. Raises ValueError for report data of another length."""
    if len(report_data) != REPORT_DATA_BYTES:
        raise ValueError(f"report data of {len(report_data)} bytes, expected {REPORT_DATA_BYTES}")
    return _BEFORE_DATA + report_data + _AFTER_DATA


def parse_answer(answer: bytes) -> bytes:
    """The document of an answer of the form above. Authenticates nothing.

    Raises OutsideError, and nothing else for any input: an error of the NSM, another form, bytes missing or left over.
    """
    if answer.startswith(_ERROR):
        raise OutsideError("the Nitro Security Module refuses to attest", _error_name(answer[len(_ERROR) :]))
    if not answer.startswith(_DOCUMENT):
        raise _not_understood("it begins otherwise than the answer to an attestation request")
    start, size = _byte_string(answer, len(_DOCUMENT))
    if not size or len(answer) != start + size:
        raise _not_understood(f"{len(answer)} bytes with a document of {size} bytes from offset {start}")
    return answer[start:]


def _byte_string(answer: bytes, offset: int) -> tuple[int, int]:
    """Offset of the content and length, in bytes, of the byte string whose head is at `offset`."""
    head = answer[offset : offset + 3]
    if head[:1] == b"\x59" and len(head) == 3:
        return offset + 3, int.from_bytes(head[1:], "big")
    if head[:1] == b"\x58" and len(head) > 1:
        return offset + 2, head[1]
    if head and 0x40 <= head[0] < 0x58:
        return offset + 1, head[0] & 0x1F
    raise _not_understood(f"no byte string at offset {offset}")


def _error_name(text: bytes) -> str:
    """The name as the module gives it, if it is one: it comes from outside the enclave."""
    name = text[1:].decode("ascii", "replace")
    return name if text[:1] == bytes((0x60 + len(name),)) and name.isidentifier() else "with an error that is not text"


def _not_understood(why: str) -> OutsideError:
    return OutsideError("the Nitro Security Module does not answer in the form expected", why)
