"""A host of TDs that signs TDX quotes, version 4, under the certificates of a synthetic SGX platform."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.sgx_platform import REPORT_DATA, SgxPlatform, make_platform

from ostiary.platform.pki import sign_raw

MRTD = b"t" * 48
RTMR1 = b"k" * 48
SEPT_VE_DISABLE = (1 << 28).to_bytes(8, "little")
DEBUG = (1 << 28 | 1).to_bytes(8, "little")

_HEADER = 48
_SGX_BODY = 384


@dataclass(frozen=True, kw_only=True)
class TdxHost:
    """platform: whose keys and certificates sign."""

    platform: SgxPlatform

    def quote(self, fields: Mapping[int, bytes] | None = None, *, report_data: bytes = REPORT_DATA) -> bytes:
        """A signed quote of a TD 1.0; fields: bytes of the body by their offset, in place of the usual ones."""
        body = bytearray(584)
        usual = {0x000: bytes([3, 0, 2]), 0x078: SEPT_VE_DISABLE, 0x088: MRTD, 0x178: RTMR1, 0x208: report_data}
        for offset, value in {**usual, **(fields or {})}.items():
            body[offset : offset + len(value)] = value
        genuine = self.platform.quote()
        header = (4).to_bytes(2, "little") + genuine[2:4] + (0x81).to_bytes(4, "little") + genuine[8:_HEADER]
        signed = header + bytes(body)
        key = self.platform.keys.attestation
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        # What vouches for the attestation key, as in the SGX quote, behind its sizes and both signatures' first parts.
        vouching = genuine[_HEADER + _SGX_BODY + 4 + 64 + 64 :]
        signature = sign_raw(key, signed) + point + (6).to_bytes(2, "little") + _sized(vouching)
        return signed + _sized(signature)

    def collateral(self, *levels: tuple[str, str, Sequence[str]], meets: int = 0) -> bytes:
        """Endorsements. levels: TCB status, date and advisories, the newest first; meets: which is this platform's."""
        members = json.loads(self.platform.collateral())
        tcb_info, identity = json.loads(members["tcb_info"]), json.loads(members["qe_identity"])
        (level,) = tcb_info["tcbLevels"]
        tcb_info["id"] = "TDX"
        tcb_info["tdxModule"] = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        given = levels or (("UpToDate", "2026-01-01", ()),)
        tcb_info["tcbLevels"] = [
            {
                "tcb": {
                    **level["tcb"],
                    "pcesvn": 0 if meets <= number else 2,
                    "tdxtcbcomponents": _components(3, 0, 2),
                },
                "tcbDate": f"{date}T00:00:00Z",
                "tcbStatus": status,
                "advisoryIDs": list(advisories),
            }
            for number, (status, date, advisories) in enumerate(given)
        ]
        identity["id"] = "TD_QE"
        for name, value in (("tcb_info", tcb_info), ("qe_identity", identity)):
            members[name] = json.dumps(value)
            members[f"{name}_signature"] = sign_raw(self.platform.keys.tcb_signer, members[name].encode()).hex()
        return json.dumps(members).encode()


def make_tdx_host() -> TdxHost:
    """A host with keys that nobody else has."""
    return TdxHost(platform=make_platform())


def _components(*numbers: int) -> list[dict[str, int]]:
    return [{"svn": number} for number in (*numbers, *[0] * 16)][:16]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data
