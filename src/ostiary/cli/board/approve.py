"""`board approve`."""

from __future__ import annotations

from ostiary.board import Choice
from ostiary.cli.board.decide import decision_command

COMMAND = decision_command(
    Choice.APPROVE,
    summary="Approve a proposal, with the key of a member of the policy board.",
    details="The approval that decides applies the version at once, or starts the board's time lock.",
    examples=(
        "board approve my-session --key ssh:alice@laptop",
        "board approve my-session --key 'pkcs11:token=board;object=alice?module-path=/usr/lib/libykcs11.so'",
        "board approve $ID --key alice.pem --pin-file /run/secrets/alice --yes --json",
    ),
)
