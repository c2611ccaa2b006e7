"""Asks the kernel of a confidential virtual machine for a report on it: TDX or SEV-SNP. Standard library only.

One request is one directory below `tsm/report` of configfs, used in this order:

1. `mkdir` of a name that nobody else uses; the kernel fills it with files.
2. `generation` is read: it counts what is written to the others.
3. `privlevel` is written if this kernel does not run at the highest level (SEV-SNP: VMPL), then `inblob`, in one piece.
4. `provider`, `outblob` and `auxblob` are read. EWOULDBLOCK: somebody wrote meanwhile.
5. `generation` is read again. If it moved by more than what we wrote, all that was read may be about other data: again.
6. `rmdir`.

Source: Linux Documentation/ABI/testing/configfs-tsm-report and drivers/virt/coco/tsm.c.
"""

from __future__ import annotations

import errno
import os
from binascii import b2a_base64
from contextlib import suppress

from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program
from ostiary.errors import ConfigurationError, OutsideError

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIRECTORY = "/sys/kernel/config/tsm/report"
TEES = {"sev_guest": "snp", "tdx_guest": "tdx"}
"""What `provider` says, and whose evidence it brings."""
MAX_BLOB_BYTES = 32 * 1024
"""The kernel's own limit for `outblob`."""
MAX_TEXT_BYTES = 64
MAX_PRIVLEVEL = 3
ATTEMPTS = 5
"""Rounds from step 2 to 5, until nobody else wrote."""
MAX_NAMES = 1000
"""Names tried: some may be left from processes of the same id that were killed."""
MAX_TABLE_ENTRIES = 32

_SIGNING_KEY_OFFSET = 0x48
"""Of an SNP report: 4 bytes, little endian; bits 4:2 tell the key that signed."""
_ENTRY_BYTES = 24
_VCEK, _VLEK, _ASK, _ARK, _CRL = (
    bytes.fromhex(guid.replace("-", ""))
    for guid in (
        "63da758d-e664-4564-adc5-f4b93be8accd",
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",
        "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    )
)
_SIGNERS = {0: _VCEK, 1: _VLEK}


class _DisturbedError(OutsideError):
    """Somebody else used the directory of this request: what was read may be about other data."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"something else writes to {entry}")


class ConfigfsTsmAttester:
    """The `tsm/report` of configfs at `directory`.

    privlevel: 0 to 3, the level that a report is asked for; None takes the highest that this kernel may have.
    make, remove: `mkdir` and `rmdir` of a directory that the kernel fills.
    """

    def __init__(
        self,
        directory: str = DIRECTORY,
        *,
        privlevel: int | None = None,
        make: Callable[[str], None] = os.mkdir,
        remove: Callable[[str], None] = os.rmdir,
    ) -> None:
        if privlevel is not None and not 0 <= privlevel <= MAX_PRIVLEVEL:
            raise ConfigurationError(f"privilege level {privlevel}, expected 0 to {MAX_PRIVLEVEL}")
        self._directory = directory
        self._privlevel = privlevel
        self._make = make
        self._remove = remove

    def unavailable(self) -> str | None:
        """Why no report can be had, in one line; None if one can be asked for. Makes and removes a directory."""
        try:
            entry = self._enter()
        except OutsideError as error:
            return str(error)
        try:
            self._tee(entry)
        except OutsideError as error:
            return str(error)
        finally:
            self._leave(entry)
        return None

    def attest(self, report_data: bytes, program: Program | None) -> Evidence:  # noqa: ARG002 - the machine is measured
        """A TDX quote or an SNP report over 64 bytes of `report_data`; with SNP, the certificates that the host has.

        `program` is not looked at: the launch measurement is of the virtual machine, and what its image starts is the
        image's to say.
        Guarantees that nothing else was written between `report_data` and the report, if the kernel counts right.
        Raises OutsideError: no such kernel, no right to ask it, or always disturbed.
        """
        entry = self._enter()
        try:
            for _ in range(ATTEMPTS):
                with suppress(_DisturbedError):
                    return self._request(entry, report_data)
        except OSError as error:
            raise OutsideError(
                f"the kernel gives no report at {entry}: {_reason(error)}", "`dmesg` may say more"
            ) from error
        finally:
            self._leave(entry)
        raise OutsideError(
            f"in {ATTEMPTS} attempts at {entry} the kernel counted other writes than ours",
            "end what writes there; it can have a directory of its own",
        )

    def _request(self, entry: str, report_data: bytes) -> Evidence:
        """Steps 2 to 5. Raises _DisturbedError, OutsideError, OSError."""
        # 2.
        before = _number(entry, "generation")
        # 3.
        written = self._lower_level(entry) + 1
        _write(entry, "inblob", report_data)
        # 4.
        tee = self._tee(entry)
        report = _read(entry, "outblob", MAX_BLOB_BYTES)
        table = _read_if_there(entry, "auxblob", MAX_BLOB_BYTES) if tee == "snp" else b""
        # 5.
        if _number(entry, "generation") != before + written:
            raise _DisturbedError(entry)
        if not report:
            raise OutsideError(f"the kernel gives an empty report at {entry}")
        return Evidence(
            tee=tee, evidence=report, endorsements=certificates_as_pem(table, report) if tee == "snp" else b""
        )

    def _lower_level(self, entry: str) -> int:
        """Ask for a report of another level than the highest if need be; how often that wrote."""
        level = self._privlevel
        if level is None:
            floor = _read_if_there(entry, "privlevel_floor", MAX_TEXT_BYTES).strip() or b"0"
            level = _parse_number(floor, entry, "privlevel_floor") or None
        if level is None:
            return 0
        _write(entry, "privlevel", str(level).encode())
        return 1

    def _enter(self) -> str:
        for number in range(MAX_NAMES):
            entry = f"{self._directory}/ostiary-{os.getpid()}-{number}"
            try:
                self._make(entry)
            except FileExistsError:
                continue
            except OSError as error:
                raise OutsideError(_why_no_entry(self._directory, error)) from error
            return entry
        raise OutsideError(f"{self._directory} is full of requests that nobody removed; remove them with rmdir")

    def _leave(self, entry: str) -> None:
        with suppress(OSError):  # The evidence is there; a directory more is no reason to stop.
            self._remove(entry)

    def _tee(self, entry: str) -> str:
        try:
            provider = _read(entry, "provider", MAX_TEXT_BYTES).strip().decode("ascii", "replace")
        except OSError as error:
            raise OutsideError(f"the kernel does not name its provider at {entry}: {_reason(error)}") from error
        if provider not in TEES:
            raise OutsideError(f"reports of the provider {provider!r} are not known; expected {' or '.join(TEES)}")
        return TEES[provider]


def certificates_as_pem(table: bytes, report: bytes) -> bytes:
    """The certificates and revocation lists of a host's certificate table, those of the key that signed `report` first.

    Entries of 24 bytes up to one of zeros: GUID, 16 bytes, in the order of RFC 9562 or of the kernel's guid_t; offset
    from the table's begin and length in bytes, 4 each, little endian. Taken are VCEK or VLEK, whichever the report's
    signing key field at 0x48 names, ASK (or ASVK), ARK and CRL, the first of each; in DER, or in PEM as it stands.

    The table is the host's word, good for what its certificates prove: the service judges them. So what is not of this
    form is left out, and nothing is ever raised.
    Source: GHCB specification 2.03 section 4.1.8.1; SEV-SNP firmware ABI, MSG_EXPORT_REPORT.
    """
    found: dict[bytes, bytes] = {}
    for guid, content in _entries(table):
        found.setdefault(guid, content)
    signing_key = int.from_bytes(report[_SIGNING_KEY_OFFSET : _SIGNING_KEY_OFFSET + 4], "little") >> 2 & 7
    wanted = (_SIGNERS.get(signing_key, b""), _ASK, _ARK, _CRL)
    return b"".join(
        _pem("X509 CRL" if guid is _CRL else "CERTIFICATE", first)
        for guid in wanted
        if (first := found.get(guid) or found.get(_as_guid_t(guid)))
    )


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """GUID and content of the entries that lie within the table and look like a certificate or list."""
    for number in range(MAX_TABLE_ENTRIES):
        entry = table[number * _ENTRY_BYTES : (number + 1) * _ENTRY_BYTES]
        if len(entry) < _ENTRY_BYTES or not any(entry):
            return
        start, size = (int.from_bytes(entry[at : at + 4], "little") for at in (16, 20))
        content = table[start : start + size]
        if len(content) == size and content.startswith((b"\x30", b"-----BEGIN ")):
            yield entry[:16], content


def _as_guid_t(guid: bytes) -> bytes:
    """The same GUID with its first three parts, of 4, 2 and 2 bytes, little endian."""
    return guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]


def _pem(label: str, content: bytes) -> bytes:
    if not content.startswith(b"\x30"):
        return content.rstrip(b"\x00\n") + b"\n"
    text = b2a_base64(content, newline=False)
    lines = (text[at : at + 64] + b"\n" for at in range(0, len(text), 64))
    return b"".join((f"-----BEGIN {label}-----\n".encode(), *lines, f"-----END {label}-----\n".encode()))


def _number(entry: str, name: str) -> int:
    return _parse_number(_read(entry, name, MAX_TEXT_BYTES).strip(), entry, name)


def _parse_number(text: bytes, entry: str, name: str) -> int:
    if not text.isdigit():
        raise OutsideError(f"{entry}/{name} is {text!r}, expected a number; this is no tsm/report of the kernel")
    return int(text)


def _read_if_there(entry: str, name: str, most: int) -> bytes:
    """A file that only some providers have; empty without it."""
    try:
        return _read(entry, name, most)
    except FileNotFoundError:
        return b""


def _read(entry: str, name: str, most: int) -> bytes:
    """Raises _DisturbedError where the kernel would block, OSError."""
    try:
        with open(f"{entry}/{name}", "rb") as file:
            data = file.read(most + 1)
    except BlockingIOError as error:
        raise _DisturbedError(entry) from error
    if len(data) > most:
        raise OSError(errno.EFBIG, f"{name} has more than {most} bytes")
    return data


def _write(entry: str, name: str, data: bytes) -> None:
    """In one piece: the kernel takes what was written when the file is closed. Raises OSError."""
    with open(f"{entry}/{name}", "wb", buffering=0) as file:
        file.write(data)


def _why_no_entry(directory: str, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"a report of this virtual machine takes root: {directory} may not be written to"
    if error.errno == errno.ENXIO:
        return f"no driver gives reports in {directory}; load tdx_guest or sev-guest"
    return f"no request can be made in {directory}: {_reason(error)}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
