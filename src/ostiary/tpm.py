"""A TPM 2.0: one connection, and a session on it that whoever sits on the way can neither read nor forge.

The way to a TPM is a bus, a socket or a device that others may own. So every secret parameter and every answer that
decides something goes through an HMAC session, salted by a key agreement with the TPM's storage key, whose first
parameters are encrypted (AES-128-CFB). Whoever stands in for the TPM with a storage key of its own gets past that: the
callers pin the storage key's name, or use an authorization that only the right TPM knows.

The storage key is a primary key of the owner hierarchy, made anew at each connection from the TPM's seed and a fixed
template, so the same TPM has the same key until it is cleared.
Source: TCG TPM 2.0 Library, parts 1 to 3 (1.59); TCG TSS 2.0 ESAPI 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tpm2_pytss import ESAPI, ESYS_TR, TPM2_ALG, TPM2_SE, TPM2B_PUBLIC, TPMA_SESSION, TSS2_Exception

from ostiary.errors import StoreError

# What the TSS would print by itself, it raises as well, and we say it in our own words. Read at its first call.
os.environ.setdefault("TSS2_LOG", "all+none")

NAME_BYTES = 34
"""The name of an object or index: algorithm, u16 big-endian, then SHA-256 of its public area."""

_STORAGE_KEY = "ecc256:aes128cfb"
_STORAGE_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"
_DEVICE = "device:"
_LAYER_MASK = 0xFFFF0000
_TPM_LAYER = 0
# Response codes, TPM 2.0 part 2, 6.6.3: a format-one code without its bits for the parameter, handle or session.
_FORMAT_ONE = 0x080
_FORMAT_ONE_MASK = 0x0BF
RC_AUTH_FAIL = 0x08E
RC_HANDLE = 0x08B
RC_INTEGRITY = 0x09F
RC_POLICY_FAIL = 0x09D
RC_BAD_AUTH = 0x0A2
RC_NV_UNINITIALIZED = 0x14A
RC_NV_DEFINED = 0x14C
RC_NV_SPACE = 0x14B
RC_PCR_CHANGED = 0x128
RC_LOCKOUT = 0x921
RC_OBJECT_MEMORY, RC_SESSION_MEMORY, RC_NV_RATE = 0x902, 0x903, 0x920


class Tpm:
    """A connection with its storage key and session; For one thread at a time.

    esapi, storage_key, session: for calls of the TSS. storage_name: 34 bytes that tell this TPM, until it is cleared,
    from every other. place: the TCTI, for messages.
    """

    def __init__(self, tcti: str) -> None:
        self.place = tcti
        self._require_device()
        with self.explained("connecting"):
            self.esapi = ESAPI(tcti)
        try:
            self._begin()
        except BaseException:
            self.esapi.close()
            raise

    def _begin(self) -> None:
        template = TPM2B_PUBLIC.parse(_STORAGE_KEY, objectAttributes=_STORAGE_ATTRIBUTES)
        with self.explained("making the storage key"):
            self.storage_key, public, *_ = self.esapi.create_primary(None, template, ESYS_TR.OWNER)
        self.storage_name = bytes(public.get_name())
        self.session = self.start_session(TPM2_SE.HMAC)

    def start_session(self, kind: TPM2_SE) -> ESYS_TR:
        """A session of this kind (`TPM2_SE`), salted with the storage key, with encrypted parameters both ways."""
        with self.explained("starting a session"):
            session = self.esapi.start_auth_session(self.storage_key, ESYS_TR.NONE, kind, "aes128cfb", TPM2_ALG.SHA256)
            self.esapi.trsess_set_attributes(
                session, TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT
            )
        return session

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Whatever the TSS raises in this block becomes a StoreError that says what was being done and what to do."""
        try:
            yield
        except TSS2_Exception as error:
            raise StoreError(f"the TPM {self.place}: {doing} failed: {_explain(error)}", str(error).strip()) from error

    def close(self) -> None:
        """Release what we hold inside the TPM, then the connection; a second call does nothing."""
        for handle in (self.session, self.storage_key):
            with suppress(TSS2_Exception, AttributeError):  # gone with the connection, or closed before
                self.esapi.flush_context(handle)
        self.esapi.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _require_device(self) -> None:
        if not self.place.startswith(_DEVICE):
            return
        path = Path(self.place.removeprefix(_DEVICE))
        if not path.exists():
            raise StoreError(
                f"this host has no TPM 2.0 at {path}: switch it on in the firmware, or in the virtual machine's "
                "description, or name another one"
            )
        if not os.access(path, os.R_OK | os.W_OK):
            raise StoreError(f"the TPM {path} is not ours to use: run as a user of its group, often tss")


def response_code(error: TSS2_Exception) -> int:
    """The TPM's response code without the bits that say which parameter, handle or session; 0 if others failed."""
    code = int(error.rc)
    if code & _LAYER_MASK != _TPM_LAYER:
        return 0
    return code & _FORMAT_ONE_MASK if code & _FORMAT_ONE else code


def _explain(error: TSS2_Exception) -> str:
    code = response_code(error)
    if int(error.rc) & _LAYER_MASK != _TPM_LAYER:
        return "it does not answer; see that it is there, not in use by another program, and started"
    if code == RC_LOCKOUT:
        return (
            "it is locked after wrong authorizations, by whatever program; wait until it recovers, or the owner of the "
            "TPM runs tpm2_dictionarylockout --clear-lockout"
        )
    if code in {RC_BAD_AUTH, RC_AUTH_FAIL}:
        return "it wants another authorization; the owner hierarchy must have none, run tpm2_changeauth -c owner"
    if code == RC_NV_SPACE:
        return "its memory is full; remove an index that nobody uses (tpm2_getcap handles-nv-index)"
    if code in {RC_OBJECT_MEMORY, RC_SESSION_MEMORY}:
        return "other programs left too much in it; go through a resource manager, as device:/dev/tpmrm0 is"
    if code == RC_NV_RATE:
        return "it slows writes down to spare its memory; give the freshness mode a longer bound"
    return "it refused"
