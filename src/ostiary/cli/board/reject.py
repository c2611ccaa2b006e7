"""`board reject`."""

from __future__ import annotations

from ostiary.board import Choice
from ostiary.cli.board.decide import decision_command

COMMAND = decision_command(
    Choice.REJECT,
    summary="Reject a proposal, with the key of a member of the policy board, and say why.",
    details="Of a member who may reject alone it is final. It cannot be taken back.",
    examples=('board reject my-session --key ssh:alice@laptop --reason "tolerates debug-mode"',),
)
