"""One endorsement fetched from its vendor, verified. Blocking: a service calls it on a thread."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from ostiary.broker.backoff import read_retry_after
from ostiary.errors import OutsideError
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, verify_piece
from ostiary.evidence.endorsements.vendors import MAX_ANSWER_BYTES, Places, address_of, read_answer
from ostiary.https import DEFAULT_SECONDS, ask, trusting

_TOO_BUSY = (429, 503)


class VendorError(OutsideError):
    """A vendor's server gave no good answer. everything: it would give none to any question now. wait: as it asked."""

    def __init__(self, message: str, *causes: str, everything: bool = False, wait: timedelta | None = None) -> None:
        super().__init__(message, *causes)
        self.everything = everything
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Sources:
    """places: whom to ask. trusted: PEM of who vouches for their servers; None: whom the system trusts.

    seconds: for one answer.
    """

    places: Places = field(default_factory=Places)
    trusted: str | None = field(default=None, repr=False)
    seconds: float = DEFAULT_SECONDS

    def server_of(self, part: Part) -> str | None:
        """Host and port that a part is asked of; None: nobody is."""
        address = address_of(part, self.places)
        return None if address is None else urlsplit(address).netloc


class Vendors:
    """Fetches for one service or command. Safe to use from any thread."""

    def __init__(self, sources: Sources, anchors: Anchors, *, now: Callable[[], datetime]) -> None:
        """Raises ConfigurationError if `sources.trusted` cannot be read."""
        self.sources = sources
        self._anchors = anchors
        self._now = now
        self._trust = None if sources.trusted is None else trusting(sources.trusted)
        self._reading = threading.Lock()

    def fetch(self, part: Part, *, amd_chain: bytes = b"") -> Endorsement:
        """The part as its vendor has it now. amd_chain: PEM, of who issues VCEKs of the product; for a VCEK only.

        Guarantees what `verify_piece` does; not that it is in force or newer than another.
        Raises VendorError: nobody to ask, no answer, a status other than 200; EvidenceFormatError and
        EvidenceRefusedError: an answer that is not that endorsement.
        """
        url = address_of(part, self.sources.places)
        if url is None:
            raise VendorError(f"nobody is named who could be asked for {part}")
        try:
            answer = ask(url, trust=self._context(), seconds=self.sources.seconds, max_bytes=MAX_ANSWER_BYTES)
        except OutsideError as error:
            raise VendorError(*error.chain, everything=True) from error
        server = urlsplit(url).netloc
        if answer.status in _TOO_BUSY:
            wait = read_retry_after(answer.headers.get("retry-after"), self._now())
            raise VendorError(f"{server} has no time for us, status {answer.status}", everything=True, wait=wait)
        if answer.status != 200:
            raise VendorError(f"{server} answers with status {answer.status} when asked for {part}")
        return verify_piece(
            read_answer(part, answer.headers, answer.body, amd_chain=amd_chain), self._anchors, now=self._now()
        )

    def _context(self) -> ssl.SSLContext:
        # Not at the start: reading the anchors of the operating system takes its time.
        with self._reading:
            if self._trust is None:
                self._trust = trusting()
            return self._trust
