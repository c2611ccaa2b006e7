"""What every use case needs, handed in once: state, roots, clock, randomness, and what was made before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ostiary.broker.challenge import Challenges
from ostiary.broker.configure import Configuration
from ostiary.broker.denial_records import DenialRecords
from ostiary.broker.file_records import FileRecords
from ostiary.broker.guesses import Guesses
from ostiary.broker.kept_endorsements import Endorsements
from ostiary.broker.key_sets import KeySets
from ostiary.broker.key_vaults import KeyVaults
from ostiary.broker.last_evidence import LastEvidences
from ostiary.broker.memory import Memory
from ostiary.broker.outside import Outside
from ostiary.broker.proposal_lists import ProposalLists
from ostiary.broker.proposal_records import ProposalRecords
from ostiary.broker.session_records import SessionRecords
from ostiary.broker.webhooks import Webhooks
from ostiary.evidence.verifier import Verifier
from ostiary.store import Store

if TYPE_CHECKING:
    from ostiary.broker.admission import Admission, Readers

log = logging.getLogger("ostiary.broker")


@dataclass(frozen=True, kw_only=True)
class Cas:
    """One configuration and attestation service.

    verifier: holds the roots under which evidence of each TEE counts; those of software platforms only as the owner
    named them.
    admissions, configurations: made before, by names of session and service.
    lists: of proposals, that are being made. readers: of sessions, by name. webhooks: of policy boards.
    outside: the way to Azure's directory and key vaults. vaults: those that sessions keep their values in.
    key_sets: of attestation services that sessions name.
    endorsements: kept ones, and the way to their vendors. last_evidence: for a forecast.
    now: aware UTC time. random: n bytes of a cryptographic generator.
    """

    store: Store
    sessions: SessionRecords
    files: FileRecords
    challenges: Challenges
    guesses: Guesses
    denials: DenialRecords
    admissions: Memory[tuple[str, str], Admission]
    configurations: Memory[tuple[str, str], Configuration]
    proposals: ProposalRecords
    lists: ProposalLists
    readers: Memory[str, Readers]
    webhooks: Webhooks
    verifier: Verifier
    outside: Outside
    vaults: KeyVaults
    key_sets: KeySets
    endorsements: Endorsements
    last_evidence: LastEvidences
    now: Callable[[], datetime]
    random: Callable[[int], bytes]
