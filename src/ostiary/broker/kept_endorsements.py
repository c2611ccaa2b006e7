"""Endorsements for each start without waiting for a vendor, and vendors asked ahead of time.

A start takes what it brought or what is kept. Only where neither can be used, and a vendor may be asked, it waits for
the vendor, WAIT_SECONDS at most. Everything else is asked for in the background.

Invariants: a part is asked for once at a time; a server that failed is left alone until its time has come, whoever
wants something of it; what `Shelf` keeps never becomes older.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ostiary.broker.backoff import wait_after
from ostiary.broker.outside import MAX_OF_ONE_SESSION, Outside
from ostiary.broker.shelf import Shelf
from ostiary.broker.vendors import VendorError, Vendors
from ostiary.errors import (
    ConfigurationError,
    EndorsementsMissingError,
    EvidenceFormatError,
    OstiaryError,
)
from ostiary.evidence.endorsements.bundle_file import MAX_BUNDLE_FILE_BYTES, read_bundle
from ostiary.evidence.endorsements.choice import Chooser, Chosen, parts_of
from ostiary.evidence.endorsements.part import Part, parse_part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, verify_piece
from ostiary.evidence.roots import AMD_PRODUCTS
from ostiary.store import Expect

WAIT_SECONDS = 10.0
"""What a start waits at most for a vendor, where nothing that it could use is at hand."""
MAX_RUNNING = 64
"""Parts that are asked for at one time; of them a few at once (`outside.MAX_OF_ONE_SESSION`), the others wait."""
MAX_WANTED = 1024
"""Parts that starts used and no vendor gave yet, noted to be asked for."""
MAX_NEW_A_MINUTE = 60
"""Parts that starts may have asked for at once: whoever invents chips does not use up what the vendor answers us."""
LOOK_EVERY = timedelta(minutes=1)
REFRESH_EVERY = timedelta(days=1)
"""A statement is asked for again so long after it was made or looked for; a vendor rates platforms anew any day."""
LAST_THIRD_EVERY = timedelta(hours=1)
"""The same, when two thirds of its life are over."""
CERTIFICATE_AHEAD = timedelta(days=30)
"""So long before its end a certificate is asked for again, once in REFRESH_EVERY."""
MAX_BACKOFFS = 4096
"""Parts whose failures are remembered; the one that failed longest ago is forgotten first."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_MINUTE = timedelta(minutes=1)

log = logging.getLogger("ostiary.broker.endorsements")


@dataclass(frozen=True, kw_only=True)
class _Failed:
    times: int
    until: datetime


class Endorsements:
    """The endorsements of one service. Used on the event loop; vendors and the disk are waited for on threads.

    vendors: None: nobody is asked. bundle: a file of the owner that is read at each start and when it changes.
    """

    def __init__(
        self,
        shelf: Shelf,
        anchors: Anchors,
        outside: Outside,
        *,
        now: Callable[[], datetime],
        random: Callable[[int], bytes],
        vendors: Vendors | None = None,
        bundle: Path | None = None,
    ) -> None:
        self.shelf = shelf
        self._anchors = anchors
        self._chooser = Chooser(anchors, shelf.held)
        self._outside = outside
        self._now = now
        self._random = random
        self._vendors = vendors
        self._bundle = bundle
        self._bundle_read: tuple[int, int] | None = None
        self._running: dict[Part, asyncio.Task[None]] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._wanted: dict[Part, None] = {}
        self._checked: dict[Part, datetime] = {}
        self._failed: dict[str, _Failed] = {}
        self._asked_new: deque[datetime] = deque(maxlen=MAX_NEW_A_MINUTE)

    def grounds(self, tee: str, evidence: bytes) -> tuple[Expect, ...]:
        """The conditions that what is kept for this evidence is still what is kept now. Raises EvidenceFormatError."""
        parts = parts_of(tee, evidence)
        # An old report does not name its product, and the list that is looked at is that of its certificate's.
        lists = [Part(kind="amd-crl", name=product) for product in AMD_PRODUCTS] if tee in ("snp", "tpm") else []
        return self.shelf.conditions(dict.fromkeys((*parts, *lists)))

    async def choose(self, tee: str, evidence: bytes, sent: bytes, *, max_age: timedelta | None = None) -> Chosen:
        """What to verify evidence with, and at which time, with the guarantees and errors of `Chooser.choose`.

        Waits for a vendor only if there is nothing to use, WAIT_SECONDS at most, and not if the vendor failed lately.
        By what the store knows: whoever releases something has its commit expect its `grounds`, asked for before this.
        Raises StoreError besides.
        """
        self.shelf.follow()
        try:
            chosen = self._chooser.choose(tee, evidence, sent, now=self._now(), max_age=max_age)
        except EndorsementsMissingError as error:
            if not await self._fetch_missing([parse_part(text) for text in error.parts]):
                raise
            chosen = self._chooser.choose(tee, evidence, sent, now=self._now(), max_age=max_age)
        self._want(chosen.parts)
        return chosen

    def accept(self, chosen: Chosen) -> None:
        """Keep what an attester sent, now that its evidence was accepted. Returns at once."""
        new = [one for one in chosen.sent if self._is_news(one)]
        if new:
            task = asyncio.get_running_loop().create_task(self._store_sent(new))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)

    async def run(self) -> None:
        """Look after the endorsements until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception:
                # A refresh that fails must not be the last.
                log.exception("endorsements could not be looked after")
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def refresh(self) -> None:
        """Read the owner's bundle if it changed, and ask vendors for what is due; returns when all have answered."""
        await self._read_bundle()
        if self._vendors is None:
            return
        self.shelf.look()
        parts = self.shelf.parts()
        due = [part for part in parts if self._is_due(part)]
        due += [part for part in self._wanted if part not in parts and part not in due]
        self._wanted.clear()
        self._checked = {part: when for part, when in self._checked.items() if part in parts}
        # A few at a time, so that none waits so long for its turn that it seems to have failed.
        for start in range(0, len(due), MAX_OF_ONE_SESSION):
            tasks = [
                task for part in due[start : start + MAX_OF_ONE_SESSION] if (task := self._start(part)) is not None
            ]
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_bundle(self) -> None:
        if self._bundle is None:
            return
        try:
            status = self._bundle.stat()
            if (status.st_mtime_ns, status.st_size) == self._bundle_read:
                return
            self._bundle_read = (status.st_mtime_ns, status.st_size)
            stored = await asyncio.to_thread(import_bundle, self.shelf, self._anchors, self._bundle, now=self._now())
        except (OSError, OstiaryError) as error:
            log.warning("endorsements of %s cannot be used: %s", self._bundle, error)
            return
        log.info("%d endorsements of %s are new", len(stored), self._bundle)

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _fetch_missing(self, parts: Iterable[Part]) -> bool:
        """Ask for parts that a start needs at once; whether it is worth to look again."""
        tasks = []
        for part in parts:
            task = self._running.get(part)
            if task is None and self._server_to_ask(part) is not None and self._may_ask_new():
                task = self._start(part)
            if task is not None:
                tasks.append(task)
        if not tasks:
            return False
        await asyncio.wait(tasks, timeout=WAIT_SECONDS)
        return True

    def _may_ask_new(self) -> bool:
        now = self._now()
        full = len(self._asked_new) == MAX_NEW_A_MINUTE
        if full and abs(now - self._asked_new[0]) < _MINUTE:
            return False
        self._asked_new.append(now)
        return True

    def _start(self, part: Part) -> asyncio.Task[None] | None:
        """The task that asks for a part; None if nobody is asked now."""
        known = self._running.get(part)
        server = self._server_to_ask(part)
        if known is not None or server is None or self._vendors is None:
            return known
        task = asyncio.get_running_loop().create_task(self._ask(part, server, self._vendors))
        self._running[part] = task
        task.add_done_callback(lambda _: self._running.pop(part, None))
        return task

    def _server_to_ask(self, part: Part) -> str | None:
        """Who may be asked for a part now."""
        if self._vendors is None or len(self._running) >= MAX_RUNNING or self._is_left_alone(str(part)):
            return None
        server = self._vendors.sources.server_of(part)
        return None if server is None or self._is_left_alone(server) else server

    async def _ask(self, part: Part, server: str, vendors: Vendors) -> None:
        try:
            chain = await self._amd_chain(part)
            endorsement = await self._outside.run(
                f"https://{server}", lambda: vendors.fetch(part, amd_chain=chain), seconds=vendors.sources.seconds
            )
            await asyncio.to_thread(self.shelf.put, [endorsement], "vendor")
        except VendorError as error:
            self._note_failure(server if error.everything else str(part), error.wait)
            log.warning("%s could not be fetched: %s", part, error)
        except OstiaryError as error:
            self._note_failure(str(part), None)
            log.warning("%s could not be had: %s", part, error)
        else:
            self._failed.pop(server, None)
            self._failed.pop(str(part), None)
            self._checked[part] = self._now()

    async def _amd_chain(self, part: Part) -> bytes:
        """Who issues the VCEKs of a product, which comes with none of them."""
        if part.kind != "vcek":
            return b""
        issuers = Part(kind="amd-chain", name=f"vcek/{part.words[0]}")
        if self.shelf.held(issuers) is None:
            task = self._start(issuers)
            if task is not None:
                await task
        kept = self.shelf.held(issuers)
        if kept is None:
            raise VendorError(f"there is no {issuers}, without which the certificate cannot be verified")
        return kept.endorsement.piece.data

    def _is_left_alone(self, whom: str) -> bool:
        failed = self._failed.get(whom)
        return failed is not None and self._now() < failed.until

    def _note_failure(self, whom: str, wait: timedelta | None) -> None:
        failed = self._failed.pop(whom, None)
        # What was asked before the server was left alone fails with the first, and counts as one.
        again = failed is not None and self._now() >= failed.until
        times = 1 if failed is None else failed.times + again
        jitter = int.from_bytes(self._random(2), "big") / 0xFFFF
        until = self._now() + wait_after(times, retry_after=wait, jitter=jitter)
        self._failed[whom] = _Failed(times=times, until=until if failed is None else max(until, failed.until))
        if len(self._failed) > MAX_BACKOFFS:
            del self._failed[next(iter(self._failed))]

    # --- keeping -----------------------------------------------------------------------------------------------------

    def _is_due(self, part: Part) -> bool:
        kept = self.shelf.held(part)
        checked = self._checked.get(part, _LONG_AGO)
        if kept is None or kept.origin == "attester":
            return self._now() - checked >= LAST_THIRD_EVERY
        return is_due(kept.endorsement, checked, self._now())

    def _want(self, parts: Iterable[Part]) -> None:
        if self._vendors is None:
            return
        for part in parts:
            if len(self._wanted) < MAX_WANTED and self.shelf.held(part) is None:
                self._wanted[part] = None

    def _is_news(self, endorsement: Endorsement) -> bool:
        kept = self.shelf.held(endorsement.part)
        return kept is None or (kept.origin == "attester" and endorsement.is_newer_than(kept.endorsement))

    async def _store_sent(self, new: list[Endorsement]) -> None:
        try:
            await asyncio.to_thread(self.shelf.put, new, "attester")
        except OstiaryError as error:
            log.warning("endorsements that came with evidence could not be stored: %s", error)


def is_due(endorsement: Endorsement, checked: datetime, now: datetime) -> bool:
    """Whether a vendor should be asked for a newer copy. checked: when that was done last. Pure."""
    if not endorsement.part.is_statement:
        return now >= endorsement.until - CERTIFICATE_AHEAD and now - checked >= REFRESH_EVERY
    if now >= endorsement.until - (endorsement.until - endorsement.issued) / 3:
        return now - checked >= LAST_THIRD_EVERY
    return now - max(checked, endorsement.issued) >= REFRESH_EVERY


def import_bundle(shelf: Shelf, anchors: Anchors, path: Path, *, now: datetime) -> tuple[Part, ...]:
    """Store the endorsements of a bundle file that are better than what is kept, and return their parts.

    All of them are verified before any is stored. Raises ConfigurationError (no such file), EvidenceFormatError and
    EvidenceRefusedError, naming the part, and StoreError.
    """
    return shelf.put(read_bundle_file(path, anchors, now=now), "vendor")


def read_bundle_file(path: Path, anchors: Anchors, *, now: datetime) -> tuple[Endorsement, ...]:
    """The endorsements of a bundle file, verified. Raises as `import_bundle`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BUNDLE_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "name a file of `ostiary endorsements export`") from error
    try:
        pieces = read_bundle(data)
    except EvidenceFormatError as error:
        raise EvidenceFormatError(f"{path}: no bundle of endorsements", *error.chain) from error
    return tuple(verify_piece(piece, anchors, now=now) for piece in pieces)
