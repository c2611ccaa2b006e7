"""`ostiary demo`: the whole way with real processes on this machine, told in plain words."""

from ostiary.demo.story import tell

__all__ = ["tell"]
