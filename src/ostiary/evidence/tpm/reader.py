"""Reads structures of a TPM from bytes, front to back. Authenticates nothing."""

from __future__ import annotations

from typing import Literal

from ostiary.errors import EvidenceFormatError


class Reader:
    """A place in some bytes. what: names the structure in messages. order: of integers.

    Every method raises EvidenceFormatError, naming field and offset, and nothing else.
    """

    def __init__(self, data: bytes, what: str, order: Literal["big", "little"]) -> None:
        self._data = data
        self._what = what
        self._order = order
        self.offset = 0

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes."""
        end = self.offset + size
        if end > len(self._data):
            raise self.wrong(field, f"the data end after {len(self._data)} bytes", f"{size} bytes here")
        start, self.offset = self.offset, end
        return self._data[start:end]

    def number(self, size: int, field: str) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size, field), self._order)

    def sized(self, field: str, most: int) -> bytes:
        """A TPM2B: the length in two bytes, at most `most`, and so many bytes."""
        size = self.number(2, field)
        if size > most:
            raise self.wrong(field, f"{size} bytes", f"at most {most}", back=2)
        return self.take(size, field)

    def expect(self, expected: int, size: int, field: str) -> None:
        """An integer that has one value only."""
        found = self.number(size, field)
        if found != expected:
            raise self.wrong(field, f"{found:#x}", f"{expected:#x}", back=size)

    @property
    def more(self) -> bool:
        """Something is left."""
        return self.offset < len(self._data)

    def end(self) -> None:
        """Nothing is left."""
        if self.more:
            raise self.wrong("end", f"{len(self._data) - self.offset} bytes more", "none")

    def wrong(self, field: str, found: str, expected: str, *, back: int = 0) -> EvidenceFormatError:
        """The error for a field that ended, or began `back` bytes before, at the present offset."""
        return EvidenceFormatError(f"{self._what}, {field} at {self.offset - back:#x}: {found}, expected {expected}")
