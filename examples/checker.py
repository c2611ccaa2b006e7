"""A policy checker of one's own: approves what has no risk, rejects all else. Usage: checker.py CAS CAS_CA IDENTITY

CAS_CA is cas-ca.pem of the service, IDENTITY a PEM file with the member's private key and its certificate.
"""

import sys
from pathlib import Path

from ostiary.board import Choice
from ostiary.board.shown import Proposal, key_hash
from ostiary.client import Client, parse_address
from ostiary.errors import ConflictError
from ostiary.member_key import choose_key


def judge(proposal: Proposal) -> tuple[Choice, str]:
    if proposal.risks:
        return Choice.REJECT, proposal.risks[0].sentence
    return Choice.APPROVE, "no risk was found"


cas, cas_ca, identity = sys.argv[1:]
client = Client(parse_address(cas), anchors=Path(cas_ca).read_text(), identity=Path(identity).read_text())
cursor = None
with choose_key(identity).unlocked(input) as key:
    while True:
        listed = client.proposals(waiting_for=key_hash(key.spki), after=cursor, wait_seconds=50)
        for waiting in listed.proposals:
            proposal = client.proposal(waiting.proposal)  # raises unless texts, facts and id belong together
            choice, reason = judge(proposal)
            try:
                counted = client.decide(proposal, choice, key=key, reason=reason)
                print(choice.value, proposal.id, reason, counted.state.value, flush=True)
            except ConflictError:
                pass  # somebody else closed it meanwhile
        cursor = listed.cursor
