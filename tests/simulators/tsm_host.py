"""The kernel's side of `tsm/report` in configfs, played in an ordinary directory with FIFOs and threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.simulators.snp_chip import Chip

GUIDS = {
    "vcek": "63da758de6644564adc5f4b93be8accd",
    "vlek": "a8074bc2a25a483eaae639c045a0b8a1",
    "ask": "4ab7b379bbac4fe4a02f05aef327c782",
    "ark": "c0b406a4a80349529743" + "3fb6014cd0ae",
    "crl": "92f81bc358114d3d97ffd19f88dc67ea",
}
"""The VCEK's has been seen so, byte for byte, in tables of EPYC 7B13 at Google."""


def certificate_table(*entries: tuple[str, bytes]) -> bytes:
    """A host's certificate table: entries, an end of zeros, contents. entries: name as in GUIDS or a GUID in hex."""
    offset = 24 * (len(entries) + 1)
    head = b""
    for name, content in entries:
        head += bytes.fromhex(GUIDS.get(name, name)) + offset.to_bytes(4, "little") + len(content).to_bytes(4, "little")
        offset += len(content)
    return head + bytes(24) + b"".join(content for _, content in entries)


def chip_table(chip: Chip) -> bytes:
    """The table of a host with this chip."""
    return certificate_table(("vcek", chip.leaf.der), ("ask", chip.middle.der), ("ark", chip.root.der))


class TsmHost:
    """A directory in which `mkdir` makes what the kernel would make, and threads answer until `rmdir`.

    report: from what was written to `inblob`, and to `privlevel` or None, to `outblob`. disturbed: in so many rounds
    another writer is counted, too. floor: of the privilege level, None where the provider has none.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[bytes, int | None], bytes],
        *,
        provider: str = "sev_guest",
        table: bytes = b"",
        floor: int | None = None,
        disturbed: int = 0,
    ) -> None:
        self.directory = directory
        self.requests: list[tuple[bytes, int | None]] = []
        self._report = report
        self._provider = provider
        self._table = table
        self._floor = floor
        self._disturbed = disturbed
        self._threads: dict[str, tuple[threading.Thread, threading.Event]] = {}

    def mkdir(self, path: str) -> None:
        """As the kernel: the directory is there with all its files. Raises OSError."""
        os.mkdir(path)
        entry = Path(path)
        (entry / "generation").write_text("0\n")
        (entry / "provider").write_text(self._provider + "\n")
        for name in ("inblob", "outblob", "auxblob"):
            os.mkfifo(entry / name)
        (entry / "privlevel").touch()
        if self._floor is not None:
            (entry / "privlevel_floor").write_text(f"{self._floor}\n")
        stopped = threading.Event()
        thread = threading.Thread(target=self._serve, args=(entry, stopped), daemon=True)
        self._threads[path] = thread, stopped
        thread.start()

    def rmdir(self, path: str) -> None:
        """The directory goes, whatever is in it."""
        thread, stopped = self._threads.pop(path)
        stopped.set()
        while thread.is_alive():
            # Whichever FIFO the thread waits at gets another end.
            ends = [os.open(f"{path}/{name}", os.O_RDWR) for name in ("inblob", "outblob", "auxblob")]
            for end in ends:
                os.close(end)
            thread.join(0.01)
        for file in Path(path).iterdir():
            file.unlink()
        os.rmdir(path)

    def _serve(self, entry: Path, stopped: threading.Event) -> None:
        generation = 0
        while True:
            data = (entry / "inblob").read_bytes()
            if stopped.is_set():
                return
            written = (entry / "privlevel").read_text()
            (entry / "privlevel").write_text("")
            level = int(written) if written else None
            self.requests.append((data, level))
            generation += 1 + (level is not None)
            if self._disturbed:
                self._disturbed -= 1
                generation += 1
            (entry / "generation").write_text(f"{generation}\n")
            with suppress(BrokenPipeError):
                (entry / "outblob").write_bytes(self._report(data, level))
                if self._provider == "sev_guest":
                    (entry / "auxblob").write_bytes(self._table)
