"""`board withdraw`."""

from __future__ import annotations

from ostiary.board import Choice
from ostiary.cli.board.decide import decision_command

COMMAND = decision_command(
    Choice.WITHDRAW,
    summary="Take back an approval of a proposal that is not applied yet.",
    details="It cannot be given again: a decision only ever becomes more cautious. A rejection may follow. "
    "Of a member who did not approve it says that no approval will come; enough of these reject the proposal.",
    examples=('board withdraw my-session --key ssh:alice@laptop --reason "found something"',),
)
