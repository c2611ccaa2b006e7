"""A Nitro Security Module at the other end of its ioctl, and what a real one puts on the wire."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

import cbor2

IOCTL_RAW = 3 << 30 | struct.calcsize("QQQQ") << 16 | 0x0A << 8 | 0
"""_IOWR(NSM_MAGIC, 0x0, struct nsm_raw) of Linux include/uapi/linux/nsm.h."""
ROOM = 0x3000

REQUEST_SAMPLE = (
    "a16b4174746573746174696f6ea369757365725f64617461420909656e6f6e6365f66a7075626c69635f6b65794107",
    {"Attestation": {"user_data": b"\x09\x09", "nonce": None, "public_key": b"\x07"}},
)
ANSWER_SAMPLE = "a16b4174746573746174696f6ea168646f63756d656e7442d284", bytes.fromhex("d284")
ERROR_SAMPLE = "a1654572726f726c496e76616c6964496e646578", "InvalidIndex"
"""Bytes that AWS's own client library pins for its wire form: aws-nitro-enclaves-nsm-api, tests of src/api/mod.rs."""


class Nsm:
    """Answers each request with `answer`, which is given the decoded request."""

    def __init__(self, answer: Callable[[dict[str, Any]], bytes]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answer = answer

    def ioctl(self, _device: int, request: int, message: bytearray) -> int:
        """As `fcntl.ioctl`: reads and writes the caller's memory, as the driver does."""
        assert request == IOCTL_RAW
        address, length, room_address, room = struct.unpack("=QQQQ", message)
        assert (length <= 0x1000, room) == (True, ROOM)
        decoded = cbor2.loads(ctypes.string_at(address, length))
        self.requests.append(decoded)
        answer = self._answer(decoded)[:room]
        ctypes.memmove(room_address, answer, len(answer))
        struct.pack_into("=Q", message, 24, len(answer))
        return 0


def document_answer(document: bytes) -> bytes:
    """The answer to an attestation request."""
    return cbor2.dumps({"Attestation": {"document": document}})
