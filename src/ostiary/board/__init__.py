"""Who may create, read or update a session. Pure."""

from ostiary.board.authorize import Caller, Creator, Operation, Party, authorize

__all__ = ["Caller", "Creator", "Operation", "Party", "authorize"]
