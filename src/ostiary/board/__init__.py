"""Who may create, read or update a session. Pure."""

from ostiary.board.authorize import Operation, authorize

__all__ = ["Operation", "authorize"]
