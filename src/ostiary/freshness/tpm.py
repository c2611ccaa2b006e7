"""A store's freshness anchored in a TPM 2.0 of this machine: an NV index that can only be extended.

The index holds 32 bytes, the chain's value. To anchor a head is to extend it:

    data    SHA-256("ostiary-tpm-anchor-v1" ‖ seq, u64 big-endian ‖ head's digest, 32 ‖ audit log's frontier, encoded)
    value   SHA-256(value before ‖ data)          (TPM2_NV_Extend; 32 zeros before the first)

So one atomic step of the TPM moves the anchor on and binds it to one state; a counter would bind to a number only, and
two states can bear one number (docs/adr/0021). What was extended, and the value before, lies in a file, the memory,
written before the TPM is asked. The file needs no protection: another one does not hash to the value in the TPM.

Nobody but this service can extend the index, or answer for it: its authorization is derived from the database key and
used in HMAC sessions only, and its attributes are part of the name that the TPM puts under that HMAC. Whoever owns the
TPM can delete the index, and cannot make one with that authorization: then the anchor refuses.

Invariants:
  - the value in the TPM is that of the memory's `next`, or of its `last` if the machine stopped before extending;
  - `settle` returns only after the TPM itself said, authenticated, that the value is that of the head given;
  - an index is defined for a store without any commit, and by `forget`; in no other case;
  - any state is taken after `forget`, which leaves a mark in the TPM itself: a file cannot claim it.

Trusted on first use: an emulator that stands in for the TPM when the index is defined learns its authorization.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_NT,
    TPM2B_NV_PUBLIC,
    TPMA_NV,
    TPMS_NV_PUBLIC,
    TSS2_Exception,
)

from ostiary.audit import Frontier
from ostiary.errors import InputError, RollbackError, StoreError
from ostiary.store.record import Head
from ostiary.store.sealing.drafted import DraftedFile
from ostiary.tpm import (
    RC_AUTH_FAIL,
    RC_BAD_AUTH,
    RC_HANDLE,
    RC_NV_DEFINED,
    RC_NV_UNINITIALIZED,
    Tpm,
    response_code,
)

FORMAT = "ostiary-tpm-anchor-v1"
VALUE_BYTES = 32
NOTHING = bytes(VALUE_BYTES)
"""The value of an index that was never extended."""
FIRST_INDEX, LAST_INDEX = 0x01800000, 0x01BFFFFF
"""The handles of NV indices that an owner may define (TCG Registry of reserved TPM 2.0 handles and localities)."""
DEFAULT_INDEX = 0x01804F53

_DOMAIN = FORMAT.encode()
_RECOVERY = "if you mean to go on with this database, the owner does so on purpose: ostiary store accept-rollback"
_ATTRIBUTES = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA | (TPM2_NT.EXTEND << TPMA_NV.TPM2_NT_SHIFT)


@dataclass(frozen=True, kw_only=True)
class Link:
    """One step of the chain. before: the value it was made on. seq, digest: of the head. log: the audit log then."""

    before: bytes
    seq: int
    digest: bytes
    log: Frontier

    @property
    def data(self) -> bytes:
        """32 bytes that the index is extended with."""
        return hashlib.sha256(_DOMAIN + self.seq.to_bytes(8, "big") + self.digest + self.log.encode()).digest()

    @property
    def value(self) -> bytes:
        """The value, 32 bytes, of an index that holds this step last."""
        return hashlib.sha256(self.before + self.data).digest()


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """The step of an owner who accepts whatever state comes next. before: the value it was made on."""

    before: bytes

    @property
    def data(self) -> bytes:
        """32 bytes that the index is extended with; no state gives them."""
        return hashlib.sha256(_DOMAIN + b" forgotten").digest()

    @property
    def value(self) -> bytes:
        return hashlib.sha256(self.before + self.data).digest()


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The file. next: the step that is made, or was made last. last: the one before; None at the beginning."""

    next: Link | Forgotten
    last: Link | Forgotten | None = None


class TpmAnchor:
    """An `Anchor` in an NV index of the TPM at `tcti`, its memory in the file at `path`.

    database_key: 32 bytes, from which the index's authorization is derived. Several processes of one machine may use
    one index and one memory: each reads both anew at every `settle`, under a lock on `<path>.lock`.
    """

    def __init__(self, path: Path, *, database_key: bytes, tcti: str, index: int = DEFAULT_INDEX) -> None:
        if not FIRST_INDEX <= index <= LAST_INDEX:
            raise ValueError(f"an NV index {index:#010x}, expected one of {FIRST_INDEX:#010x} to {LAST_INDEX:#010x}")
        self._file = DraftedFile(path, what="the memory of the TPM anchor", size=None)
        self._authorization = HKDF(algorithm=SHA256(), length=32, salt=_DOMAIN, info=b"index").derive(database_key)
        self._tcti = tcti
        self._index = index
        self._device: _Index | None = None

    @property
    def place(self) -> str:
        return f"NV index {self._index:#010x} of the TPM {self._tcti}"

    @property
    def warning(self) -> str:
        return (
            f"freshness rests on {self.place}, which is trusted from its first use on: that it is a genuine TPM is for "
            "you to see to"
        )

    def settle(self, head: Head, leaves: Callable[[int], Iterator[bytes]]) -> None:
        """See `Anchor.settle`. Moves from any earlier state that `head` grew out of, however many commits lie between.

        Guarantees on return that the TPM holds exactly this head, and that its audit log goes on where the one of the
        state anchored before ended. That the records did too follows because no two commits have the same leaf
        (`audit.entry`), or at once where every commit is settled, as in the strict mode.
        Raises RollbackError: the TPM holds a newer state, another one, or none; StoreError: it does not answer, or the
        memory cannot be written.
        """
        self._with_index(lambda index: self._settle(index, head, leaves))

    def remembered(self) -> tuple[str, ...]:
        """What the TPM holds: one line, or none if that is nothing. Raises StoreError, RollbackError."""
        found: list[str] = []

        def look(index: _Index) -> None:
            value = index.value()
            anchored = None if value is None else _anchored(_decode(self._file.kept(), self._file.path), value)
            if isinstance(anchored, Link):
                found.append(
                    f"head {anchored.seq}, digest {anchored.digest.hex()}, {anchored.log.size} leaves with the root "
                    f"{anchored.log.root.hex()}"
                )
            elif anchored is None and value not in {None, NOTHING}:
                found.append(f"a state that {self._file.path} does not know")

        self._with_index(look)
        return tuple(found)

    def forget(self) -> None:
        """Take any state next: after the owner accepted a rollback, and at no other time.

        Defines the index if it is gone. Raises StoreError; RollbackError if the index is another program's.
        """

        def mark(index: _Index) -> None:
            index.define()
            self._extend(index, Forgotten(before=index.value() or NOTHING), None)

        self._with_index(mark)

    def close(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None

    def _settle(self, index: _Index, head: Head, leaves: Callable[[int], Iterator[bytes]]) -> None:
        memory = _decode(self._file.kept(), self._file.path)
        # 1. Which state the TPM holds. Nothing at all is right for a store that never had a commit.
        if memory is None and head.log_size == 0:
            index.define()
        value = index.value()
        if value is None:
            raise RollbackError(
                f"{self.place} is gone: the TPM was cleared or exchanged, the index deleted, or this store never had "
                f"one there; expected the one that vouches for commit {head.seq}; {_RECOVERY}"
            )
        anchored = _anchored(memory, value)
        if anchored is None and (value != NOTHING or head.log_size or (memory and memory.last)):
            raise RollbackError(_lost(self.place, self._file.path, memory, head), f"found value {value.hex()}")
        # 2. That the head is this state, or grew out of it.
        known = anchored if isinstance(anchored, Link) else None
        if known is not None and is_anchored(known, head, place=self.place):
            return
        link = _link(value, head, known.log if known else Frontier(), leaves)
        # 3. The memory first: it tells after a crash what the TPM was about to hold. Then the TPM.
        self._extend(index, link, anchored)

    def _extend(self, index: _Index, step: Link | Forgotten, last: Link | Forgotten | None) -> None:
        self._file.draft(_encode(Memory(next=step, last=last)))
        self._file.keep()
        index.extend(step.data)
        found = index.value()
        if found is None or not hmac.compare_digest(found, step.value):
            raise RollbackError(
                f"{self.place} was moved by somebody else while {_name(step)} was anchored: a fork, another "
                "process runs on a copy of this database; stop all, find out which one is right; " + _RECOVERY,
                f"found value {(found or b'').hex()}, expected {step.value.hex()}",
            )

    def _with_index(self, act: Callable[[_Index], None]) -> None:
        with self._locked():
            if self._device is not None:
                try:
                    return act(self._device)
                except RollbackError:
                    raise
                except StoreError:
                    # The connection or its session may be gone with a restart of the TPM: once more, with a new one.
                    self.close()
            self._device = _Index(Tpm(self._tcti), self._index, self._authorization, self.place)
            try:
                act(self._device)
            except RollbackError:
                raise
            except StoreError:
                self.close()
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait until no other process of this machine is at it. Whoever goes around the lock is found by the TPM."""
        path = self._file.path.with_name(self._file.path.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}: expected a file of this process's user") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class _Index:
    """Our NV index over one connection to the TPM."""

    def __init__(self, tpm: Tpm, handle: int, authorization: bytes, place: str) -> None:
        self._tpm = tpm
        self._handle = handle
        self._authorization = authorization
        self._place = place
        self._object: ESYS_TR | None = None

    def define(self) -> None:
        """Make the index, if there is none at its handle."""
        public = TPMS_NV_PUBLIC(
            nvIndex=self._handle, nameAlg=TPM2_ALG.SHA256, attributes=_ATTRIBUTES, dataSize=VALUE_BYTES
        )
        with self._tpm.explained(f"defining {self._place}"):
            try:
                self._object = self._tpm.esapi.nv_define_space(
                    self._authorization, TPM2B_NV_PUBLIC(public), session1=self._tpm.session
                )
            except TSS2_Exception as error:
                if response_code(error) != RC_NV_DEFINED:
                    raise

    def value(self) -> bytes | None:
        """The chain's value; NOTHING before the first step; None if there is no such index.

        Guarantees that it comes from whoever knows the authorization, and answers this very question: the HMAC of the
        answer covers both sides' nonces, and the name of the index with its attributes.
        Raises RollbackError if the index at the handle is not ours.
        """
        index = self._found()
        if index is None:
            return None
        try:
            return bytes(self._tpm.esapi.nv_read(index, VALUE_BYTES, 0, auth_handle=index, session1=self._tpm.session))
        except TSS2_Exception as error:
            code = response_code(error)
            if code == RC_NV_UNINITIALIZED:
                return NOTHING
            if code in {RC_AUTH_FAIL, RC_BAD_AUTH}:
                raise self._foreign("its authorization is not the one of this store") from error
            with self._tpm.explained(f"reading {self._place}"):
                raise

    def extend(self, data: bytes) -> None:
        index = self._found()
        with self._tpm.explained(f"extending {self._place}"):
            self._tpm.esapi.nv_extend(index, data, auth_handle=index, session1=self._tpm.session)

    def close(self) -> None:
        self._tpm.close()

    def _found(self) -> ESYS_TR | None:
        if self._object is None:
            try:
                self._object = self._tpm.esapi.tr_from_tpmpublic(self._handle)
            except TSS2_Exception as error:
                if response_code(error) == RC_HANDLE:
                    return None
                with self._tpm.explained(f"looking for {self._place}"):
                    raise
            self._require_ours(self._object)
            self._tpm.esapi.tr_set_auth(self._object, self._authorization)
        return self._object

    def _require_ours(self, index: ESYS_TR) -> None:
        with self._tpm.explained(f"looking at {self._place}"):
            public = self._tpm.esapi.nv_read_public(index)[0].nvPublic
        found = (int(public.attributes) & ~int(TPMA_NV.WRITTEN), int(public.dataSize), bytes(public.authPolicy))
        if found != (int(_ATTRIBUTES), VALUE_BYTES, b"") or public.nameAlg != TPM2_ALG.SHA256:
            self._object = None
            raise self._foreign(f"its attributes are {found[0]:#010x}, expected {int(_ATTRIBUTES):#010x}")

    def _foreign(self, why: str) -> RollbackError:
        return RollbackError(
            f"{self._place} is not the one that this store made: another program uses that index, so choose "
            "another one, or somebody deleted ours and made one in its place; an index that nobody needs any more is "
            f"removed by tpm2_nvundefine {self._handle:#010x}",
            why,
        )


def is_anchored(anchored: Link, head: Head, *, place: str) -> bool:
    """True if this head is the anchored one, False if it is a later one, which `_link` must find to grow out of it.

    Raises RollbackError for an earlier one, and for another one of the same number.
    """
    if head.seq < anchored.seq:
        raise RollbackError(
            f"the database is older than {place} remembers: found commit {head.seq}, expected {anchored.seq} or later: "
            f"bring the newest database back; {_RECOVERY}"
        )
    if head.seq > anchored.seq:
        return False
    if not hmac.compare_digest(head.digest, anchored.digest):
        raise RollbackError(
            f"the database is a fork of the one that {place} remembers: found commit {head.seq} with digest "
            f"{head.digest.hex()}, expected {anchored.digest.hex()}: bring the right database back; {_RECOVERY}"
        )
    return True


def _link(before: bytes, head: Head, log: Frontier, leaves: Callable[[int], Iterator[bytes]]) -> Link:
    """The step to `head`, whose audit log must go on where `log` ends. Raises RollbackError if it does not."""
    start = log.size
    if start <= head.log_size:
        for leaf in leaves(start):
            log = log.append(leaf)
    if log.size != head.log_size or not hmac.compare_digest(log.root, head.log_root):
        raise RollbackError(
            f"commit {head.seq} did not grow out of the state that was anchored: its audit log of {head.log_size} "
            f"entries is not a continuation of the {start} entries then: a fork; bring the right database back; "
            + _RECOVERY
        )
    return Link(before=before, seq=head.seq, digest=head.digest, log=log)


def _name(step: Link | Forgotten) -> str:
    return f"commit {step.seq}" if isinstance(step, Link) else "no commit at all"


def _anchored(memory: Memory | None, value: bytes) -> Link | Forgotten | None:
    """The step that the TPM holds; None if it is none that the memory knows."""
    if memory is None:
        return None
    for step in (memory.next, memory.last):
        if step is not None and hmac.compare_digest(step.value, value):
            return step
    return None


def _lost(place: str, path: Path, memory: Memory | None, head: Head) -> str:
    if memory is None:
        return f"{path} is gone, which says what {place} vouches for: put it back; {_RECOVERY}"
    return (
        f"{place} vouches for another state than {_name(memory.next)}, the last that {path} knows, and than commit "
        f"{head.seq} of the database: both were put back to an earlier time, or somebody ran a copy of them; bring the "
        f"newest database and file back; {_RECOVERY}"
    )


def _encode(memory: Memory) -> bytes:
    document = {"format": FORMAT, "next": _encode_step(memory.next), "last": _encode_step(memory.last)}
    return json.dumps(document, indent=2).encode() + b"\n"


def _encode_step(step: Link | Forgotten | None) -> dict[str, object] | None:
    if step is None:
        return None
    if isinstance(step, Forgotten):
        return {"before": step.before.hex(), "forgotten": True}
    return {
        "before": step.before.hex(),
        "seq": step.seq,
        "digest": step.digest.hex(),
        "log": step.log.encode().hex(),
    }


def _decode(content: bytes | None, path: Path) -> Memory | None:
    """What `_encode` wrote; None for no file. Authenticates nothing. Raises StoreError."""
    if content is None:
        return None
    try:
        return _decode_memory(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, InputError):
        raise StoreError(f"{path} does not hold the memory of a TPM anchor, as {FORMAT} says: put it back") from None


def _decode_memory(document: dict[str, Any]) -> Memory:
    if document["format"] != FORMAT:
        raise ValueError("format")
    last = document["last"]
    return Memory(next=_decode_step(document["next"]), last=None if last is None else _decode_step(last))


def _decode_step(document: dict[str, Any]) -> Link | Forgotten:
    before = bytes.fromhex(document["before"])
    if len(before) != VALUE_BYTES:
        raise ValueError("length")
    if document.get("forgotten") is True:
        return Forgotten(before=before)
    digest, seq = bytes.fromhex(document["digest"]), document["seq"]
    if len(digest) != VALUE_BYTES or type(seq) is not int or not 0 <= seq < 1 << 64:
        raise ValueError("length or number")
    return Link(before=before, seq=seq, digest=digest, log=Frontier.decode(bytes.fromhex(document["log"])))
