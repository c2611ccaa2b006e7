"""What every use case needs, handed in once: state, roots, clock, randomness."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ostiary.broker.challenge import Challenges
from ostiary.broker.configure import Configurations
from ostiary.broker.session_records import SessionRecords
from ostiary.evidence.sgx import Verifier
from ostiary.store import Store

log = logging.getLogger("ostiary.broker")


@dataclass(frozen=True, kw_only=True)
class Cas:
    """One configuration and attestation service.

    verifier: holds the roots under which evidence counts; those of software platforms only as the owner named them.
    now: aware UTC time. random: n bytes of a cryptographic generator.
    """

    store: Store
    sessions: SessionRecords
    challenges: Challenges
    configurations: Configurations
    verifier: Verifier
    now: Callable[[], datetime]
    random: Callable[[int], bytes]
