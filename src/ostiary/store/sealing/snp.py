"""The database key under a key that the AMD secure processor derives for this confidential virtual machine (SEV-SNP).

The key is derived from the chip's VCEK, the launch measurement and the guest policy, so a virtual machine that was
started from other firmware or other measured parts, allows debugging or migration otherwise, or runs on another chip,
gets another one. As the VCEK depends on the version of the platform's firmware, an update of it can change the key.
Source: Linux, include/uapi/linux/sev-guest.h and Documentation/virt/coco/sev-guest.rst; AMD, SEV-SNP Firmware ABI
Specification (56860, 1.55), MSG_KEY_REQ and MSG_KEY_RSP.

This has not run on SEV-SNP hardware: it was tested against the layouts of these documents only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ostiary.errors import StoreError
from ostiary.store.sealing.wrapped import WrappedKey

DEVICE = Path("/dev/sev-guest")
MAX_VMPL = 3
KEY_RESPONSE_BYTES = 64
DERIVED_KEY_BYTES = 32

_GET_DERIVED_KEY = 0xC0205301
"""_IOWR('S', 1, struct snp_guest_request_ioctl), which has 32 bytes."""
_MESSAGE_VERSION = 1
_ROOT_VCEK = 0
_MIX_POLICY, _MIX_MEASUREMENT = 1 << 0, 1 << 3

DerivedKeyCall: TypeAlias = Callable[[bytes], bytes]
"""SNP_GET_DERIVED_KEY: from the request's 32 bytes to the response's 64. Raises StoreError."""


def snp_sealing(path: Path, *, vmpl: int, call: DerivedKeyCall | None = None) -> WrappedKey:
    """A `Sealing` in the file at `path` for a virtual machine under SEV-SNP.

    vmpl: the privilege level to mix in, 0 to 3, not below the one that this kernel runs at.
    """
    ask = call or ask_device
    return WrappedKey(
        path,
        derive=lambda: parse_response(ask(make_request(vmpl))),
        purpose="SEV-SNP derived key",
        advice=(
            "it was wrapped in a virtual machine of another launch measurement, policy or VMPL, on another chip, or "
            "before an update of the platform's firmware; start what wrapped it, or restore a database of this machine"
        ),
    )


def make_request(vmpl: int) -> bytes:
    """`struct snp_derived_key_req`, 32 bytes, integers little-endian.

    0x00  4  root_key_select = 0, VCEK
    0x04  4  reserved, zero
    0x08  8  guest_field_select = 9: bit 0 guest policy, bit 3 launch measurement
    0x10  4  vmpl
    0x14  4  guest_svn = 0, not mixed in
    0x18  8  tcb_version = 0, not mixed in
    """
    return struct.pack("<IIQIIQ", _ROOT_VCEK, 0, _MIX_POLICY | _MIX_MEASUREMENT, vmpl, 0, 0)


def parse_response(response: bytes) -> bytes:
    """The derived key, 32 bytes, out of MSG_KEY_RSP: status, u32 little-endian, at 0x00; the key at 0x20.

    Raises StoreError: another size, a status other than 0, or zeros in place of a key.
    """
    if len(response) != KEY_RESPONSE_BYTES:
        raise StoreError(f"a derived key response of {len(response)} bytes, expected {KEY_RESPONSE_BYTES}")
    status = int.from_bytes(response[:4], "little")
    if status:
        raise StoreError(
            f"the secure processor refused to derive a key: status {status:#x}, expected 0; the VMPL may be below the "
            "one that this kernel runs at"
        )
    key = response[-DERIVED_KEY_BYTES:]
    if not any(key):
        raise StoreError("the secure processor derived a key of zeros, expected a random one")
    return key


def ask_device(request: bytes, *, device: Path = DEVICE) -> bytes:
    """`DerivedKeyCall` by the kernel's device: `struct snp_guest_request_ioctl`, 32 bytes, integers little-endian.

    0x00  1  msg_version = 1, then 7 of padding
    0x08  8  address of the request
    0x10  8  address of the response
    0x18  8  exitinfo2: firmware error in the low 4 bytes, the hypervisor's in the high ones
    """
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StoreError(
            f"this host is no SEV-SNP virtual machine, or its kernel has no sev-guest driver: {device} is absent; "
            "choose another sealing"
        ) from None
    except OSError as error:
        raise StoreError(
            f"{device}: {error.strerror}: expected the device of SEV-SNP, readable and writable"
        ) from error
    question = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(KEY_RESPONSE_BYTES)
    argument = bytearray(
        struct.pack("<B7xQQQ", _MESSAGE_VERSION, ctypes.addressof(question), ctypes.addressof(answer), 0)
    )
    try:
        fcntl.ioctl(descriptor, _GET_DERIVED_KEY, argument)
    except OSError as error:
        (outcome,) = struct.unpack_from("<Q", argument, 24)
        raise StoreError(
            f"{device}: SNP_GET_DERIVED_KEY failed: {error.strerror}, exitinfo2 {outcome:#x}, expected a derived key"
        ) from error
    finally:
        os.close(descriptor)
    return answer.raw
