"""Who may create, read or update a session. Pure."""

from ostiary.board.authorize import Caller, Operation, authorize

__all__ = ["Caller", "Operation", "authorize"]
