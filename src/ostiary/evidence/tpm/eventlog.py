"""The boot event log of the TCG: bytes to events, and the PCR values that they lead to. Authenticates nothing.

Of an event, a PCR covers the digest alone: its type is anybody's word, and its data are proven only where their hash is
the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.tpm.layout import DIGEST_BYTES, HASHES, Hash
from ostiary.evidence.tpm.reader import Reader

MAX_LOG_BYTES = 512 * 1024
"""In base64, and the evidence in base64 again, this fits into a request."""
MAX_EVENTS = 2048
MAX_ALGORITHMS = 8
"""Hash algorithms of one crypto-agile log."""

_NO_ACTION = 0x00000003
_SPEC_ID = b"Spec ID Event03\0"
_STARTUP_LOCALITY = b"StartupLocality\0"
_MAX_PCR = 31
_MAX_DIGEST_BYTES = 128
# PCRs that a dynamic launch resets: ones until then.
_DYNAMIC = range(17, 23)


@dataclass(frozen=True, kw_only=True)
class Event:
    """type: the number. digests: by algorithm, as far as we know it."""

    pcr: int
    type: int
    digests: Mapping[Hash, bytes]
    data: bytes

    @property
    def extends(self) -> bool:
        """It changed its PCR; other events are notes."""
        return self.type != _NO_ACTION


@dataclass(frozen=True, kw_only=True, eq=False)
class EventLog:
    """banks: whose digests the log has. startup_locality: what the TPM was started from; PCR 0 begins with it.

    What `values` and `digests` give is worked out once.
    """

    banks: tuple[Hash, ...]
    events: tuple[Event, ...]
    startup_locality: int

    @cached_property
    def values(self) -> Mapping[Hash, Mapping[int, bytes]]:
        """Of each bank what `replay` gives."""
        return {bank: replay(self, bank) for bank in self.banks}

    @cached_property
    def digests(self) -> Mapping[Hash, Mapping[int, tuple[bytes, ...]]]:
        """Of each bank what was extended into each PCR, in order."""
        found: dict[Hash, dict[int, list[bytes]]] = {bank: {} for bank in self.banks}
        for event in self.events:
            if event.extends:
                for bank, pcrs in found.items():
                    pcrs.setdefault(event.pcr, []).append(event.digests[bank])
        return {bank: {pcr: tuple(digests) for pcr, digests in pcrs.items()} for bank, pcrs in found.items()}


def parse_event_log(data: bytes) -> EventLog:
    """Split an event log into events. Authenticates nothing.

    Integers are little-endian. The first event, and every one of a log with SHA-1 only (TCG_PCR_EVENT):
        0  4  PCR, at most 31    4  4  type    8  20  SHA-1 digest    28  4  n; n bytes event
    If the first is of type EV_NO_ACTION and its data begin with "Spec ID Event03" and a zero byte, the log is
    crypto-agile. These data go on so (TCG_EfiSpecIdEvent):
        16  4  platform class    20  4  versions, size of UINTN    24  4  number of algorithms, 1 to MAX_ALGORITHMS;
        each 2 algorithm, 2 size of its digest;    then 1 n; n bytes of the vendor
    and every other event is (TCG_PCR_EVENT2):
        0  4  PCR    4  4  type    8  4  number of digests: one of each algorithm; each 2 algorithm and the digest
        then  4  n; n bytes event

    Raises EvidenceFormatError, and nothing else for any input: over MAX_LOG_BYTES or MAX_EVENTS, another form.
    Source: TCG PC Client Platform Firmware Profile, "Event Logging".
    """
    if len(data) > MAX_LOG_BYTES:
        raise EvidenceFormatError(f"event log: {len(data)} bytes, expected at most {MAX_LOG_BYTES}")
    reader = Reader(data, "event log", "little")
    events = [_old_event(reader)]
    sizes = _algorithms(events[0])
    while reader.more:
        if len(events) >= MAX_EVENTS:
            raise reader.wrong("event", "another event", f"at most {MAX_EVENTS}")
        events.append(_old_event(reader) if sizes is None else _event(reader, sizes))
    banks: tuple[Hash, ...] = ("sha1",)
    if sizes is not None:
        banks = tuple(HASHES[algorithm] for algorithm in sizes if algorithm in HASHES)
    return EventLog(banks=banks, events=tuple(events), startup_locality=_startup_locality(events))


def replay(log: EventLog, bank: Hash) -> dict[int, bytes]:
    """The values of those PCRs that events of the log extended, in a bank that the log has."""
    values: dict[int, bytes] = {}
    for event in log.events:
        if event.extends:
            before = values.get(event.pcr) or _initial(event.pcr, bank, log.startup_locality)
            values[event.pcr] = hashlib.new(bank, before + event.digests[bank], usedforsecurity=True).digest()
    return values


def _initial(pcr: int, bank: Hash, startup_locality: int) -> bytes:
    size = DIGEST_BYTES[bank]
    if pcr == 0:
        return startup_locality.to_bytes(size, "big")
    return (b"\xff" if pcr in _DYNAMIC else b"\x00") * size


def _old_event(reader: Reader) -> Event:
    pcr, kind = _pcr(reader), reader.number(4, "eventType")
    digest = reader.take(DIGEST_BYTES["sha1"], "digest")
    return Event(pcr=pcr, type=kind, digests={"sha1": digest}, data=_data(reader))


def _event(reader: Reader, sizes: Mapping[int, int]) -> Event:
    pcr, kind = _pcr(reader), reader.number(4, "eventType")
    count = reader.number(4, "digests")
    if count != len(sizes):
        raise reader.wrong("digests", str(count), f"{len(sizes)}, one of each algorithm", back=4)
    found: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = reader.number(2, "digests.hashAlg")
        if algorithm not in sizes or algorithm in found:
            raise reader.wrong("digests.hashAlg", f"{algorithm:#06x}", "each algorithm of the first event", back=2)
        found[algorithm] = reader.take(sizes[algorithm], "digests.digest")
    digests = {HASHES[algorithm]: digest for algorithm, digest in found.items() if algorithm in HASHES}
    return Event(pcr=pcr, type=kind, digests=digests, data=_data(reader))


def _pcr(reader: Reader) -> int:
    pcr = reader.number(4, "pcrIndex")
    if pcr > _MAX_PCR:
        raise reader.wrong("pcrIndex", str(pcr), f"at most {_MAX_PCR}", back=4)
    return pcr


def _data(reader: Reader) -> bytes:
    return reader.take(reader.number(4, "eventSize"), "event")


def _algorithms(first: Event) -> dict[int, int] | None:
    """Sizes of digests by algorithm, from the first event; None if the log has SHA-1 only."""
    if first.type != _NO_ACTION or not first.data.startswith(_SPEC_ID):
        return None
    reader = Reader(first.data, "event log, first event", "little")
    reader.take(len(_SPEC_ID) + 8, "signature and versions")
    count = reader.number(4, "numberOfAlgorithms")
    if not 1 <= count <= MAX_ALGORITHMS:
        raise reader.wrong("numberOfAlgorithms", str(count), f"1 to {MAX_ALGORITHMS}", back=4)
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm, size = reader.number(2, "algorithmId"), reader.number(2, "digestSize")
        known = DIGEST_BYTES[HASHES[algorithm]] if algorithm in HASHES else None
        if algorithm in sizes or size > _MAX_DIGEST_BYTES or known not in (None, size):
            raise reader.wrong("digestSizes", f"{size} bytes of {algorithm:#06x}", "each algorithm once, with its size")
        sizes[algorithm] = size
    reader.take(reader.number(1, "vendorInfoSize"), "vendorInfo")
    reader.end()
    return sizes


def _startup_locality(events: list[Event]) -> int:
    for event in events:
        if not event.extends and event.pcr == 0 and event.data[:-1] == _STARTUP_LOCALITY:
            return event.data[-1]
    return 0
