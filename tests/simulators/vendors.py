"""Intel's PCS, a PCCS and AMD's KDS at one address on loopback, over the synthetic PKIs of the other simulators."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.chains import Holder, issue
from tests.simulators.outside import TIMEOUT_SECONDS, Answering, Outside
from tests.simulators.sgx_platform import NOW, SgxPlatform, make_platform
from tests.simulators.snp_chip import CHIP_ID, TCB, Chip, make_chip

from ostiary.broker.vendors import Sources
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, Piece, verify_piece
from ostiary.evidence.endorsements.vendors import Places, read_answer
from ostiary.platform.pki import FMSPC, sign_raw

TCB_INFO = Part(kind="tcb-info", name=f"sgx/{FMSPC.hex()}")
QE_IDENTITY = Part(kind="qe-identity", name="sgx")
PCK_CRL = Part(kind="pck-crl", name="platform")
ROOT_CRL = Part(kind="root-crl", name="intel")
OF_QUOTE = (TCB_INFO, QE_IDENTITY, PCK_CRL, ROOT_CRL)
VCEK = Part(kind="vcek", name=f"Milan/{CHIP_ID.hex()}/{TCB.hex()}")
AMD_CHAIN = Part(kind="amd-chain", name="vcek/Milan")
AMD_CRL = Part(kind="amd-crl", name="Milan")
OF_REPORT = (AMD_CHAIN, VCEK, AMD_CRL)
DAY = timedelta(days=1)


def sign_list(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    number: int,
    issued: datetime,
    end: datetime | None,
    revoked: Collection[x509.Certificate] = (),
) -> bytes:
    """A revocation list, DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(issued)
        .next_update(end or issued + 30 * DAY)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for certificate in revoked:
        if certificate.issuer == issuer.subject:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(issued).build())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Vendor:
    """What both vendors publish on a day. Every part of it can be spoiled.

    number: of TCB data and lists. change: applied to TCB info before it is signed. signer: of TCB info, else Intel's.
    """

    platform: SgxPlatform = field(default_factory=make_platform)
    chip: Chip = field(default_factory=lambda: make_chip(end=NOW + 300 * DAY))
    number: int = 5
    issued: datetime = NOW - timedelta(hours=1)
    life: timedelta = 20 * DAY
    status: str = "UpToDate"
    revoked: Collection[x509.Certificate] = ()
    change: Callable[[dict[str, Any]], None] = lambda _: None
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None

    @property
    def anchors(self) -> Anchors:
        """As if both roots were the vendors'."""
        return Anchors(intel=(self.platform.hardware_root,), amd=(self.chip.root.root(),))

    @property
    def signer_chain(self) -> bytes:
        certificate = self.platform.certificates.tcb_signer if self.signer is None else self.signer[0]
        return certificate.public_bytes(Encoding.PEM) + self.platform.certificates.root.public_bytes(Encoding.PEM)

    def signed(self, part: Part) -> tuple[bytes, bytes]:
        """The text of TCB info or identity, and its signature."""
        member = "tcb_info" if part.kind == "tcb-info" else "qe_identity"
        members = json.loads(json.loads(self.platform.collateral(status=self.status))[member])
        members["issueDate"] = f"{self.issued:%Y-%m-%dT%H:%M:%SZ}"
        members["nextUpdate"] = f"{self.issued + self.life:%Y-%m-%dT%H:%M:%SZ}"
        members["tcbEvaluationDataNumber"] = self.number
        self.change(members)
        text = json.dumps(members).encode()
        key = self.platform.keys.tcb_signer if self.signer is None else self.signer[1]
        return text, sign_raw(key, text)

    def list_of(self, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
        return sign_list(
            issuer, key, number=self.number, issued=self.issued, end=self.issued + self.life, revoked=self.revoked
        )

    def answer(self, part: Part) -> tuple[dict[str, str], bytes]:
        """Headers and body."""
        certificates, keys = self.platform.certificates, self.platform.keys
        match part.kind:
            case "tcb-info" | "qe-identity":
                text, signature = self.signed(part)
                member = "tcbInfo" if part.kind == "tcb-info" else "enclaveIdentity"
                header = "TCB-Info-Issuer-Chain" if part.kind == "tcb-info" else "SGX-Enclave-Identity-Issuer-Chain"
                body = b'{"%s":%s,"signature":"%s"}' % (member.encode(), text, signature.hex().encode())
                return {header: quote(self.signer_chain)}, body
            case "pck-crl":
                chain = certificates.issuer.public_bytes(Encoding.PEM) + certificates.root.public_bytes(Encoding.PEM)
                return {"SGX-PCK-CRL-Issuer-Chain": quote(chain)}, self.list_of(certificates.issuer, keys.issuer)
            case "root-crl":
                return {}, self.list_of(certificates.root, keys.root).hex().encode()
            case "amd-chain":
                return {}, self.chip.middle.pem + self.chip.root.pem
            case "amd-crl":
                return {}, self.list_of(self.chip.root.certificate, self.chip.root.key)
            case _:
                return {}, self.chip.leaf.der

    def piece(self, part: Part) -> Piece:
        """The part as it is today."""
        headers, body = self.answer(part)
        lower = {name.lower(): value for name, value in headers.items()}
        return read_answer(part, lower, body, amd_chain=self.chip.middle.pem + self.chip.root.pem)

    def endorsement(self, part: Part, *, now: datetime = NOW) -> Endorsement:
        """The same, verified."""
        return verify_piece(self.piece(part), self.anchors, now=now)

    def collateral(self) -> bytes:
        """All parts of a quote as an attester sends them."""
        tcb_info, identity = self.signed(TCB_INFO), self.signed(QE_IDENTITY)
        certificates, keys = self.platform.certificates, self.platform.keys
        root = certificates.root.public_bytes(Encoding.PEM).decode()
        return json.dumps(
            {
                "pck_crl_issuer_chain": certificates.issuer.public_bytes(Encoding.PEM).decode() + root,
                "root_ca_crl": self.list_of(certificates.root, keys.root).hex(),
                "pck_crl": self.list_of(certificates.issuer, keys.issuer).hex(),
                "tcb_info_issuer_chain": self.signer_chain.decode(),
                "tcb_info": tcb_info[0].decode(),
                "tcb_info_signature": tcb_info[1].hex(),
                "qe_identity_issuer_chain": self.signer_chain.decode(),
                "qe_identity": identity[0].decode(),
                "qe_identity_signature": identity[1].hex(),
            }
        ).encode()


PATHS = {
    "/sgx/certification/v4/tcb": TCB_INFO,
    "/sgx/certification/v4/qe/identity": QE_IDENTITY,
    "/sgx/certification/v4/pckcrl": PCK_CRL,
    "/sgx/certification/v4/rootcacrl": ROOT_CRL,
    "/vcek/v1/Milan/cert_chain": AMD_CHAIN,
    "/vcek/v1/Milan/crl": AMD_CRL,
    f"/vcek/v1/Milan/{CHIP_ID.hex()}": VCEK,
}


def said(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """An HTTP answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def hanging(go_on: threading.Event, begun: threading.Event | None = None) -> Answering:
    """No answer until `go_on`; begun: set when one is waited for."""

    def hang(_request: bytes, _stream: ssl.SSLSocket) -> None:
        if begun is not None:
            begun.set()
        go_on.wait(TIMEOUT_SECONDS)

    return hang


class VendorServer:
    """vendor: what it publishes; early: what it answers to update=early. in_place_of: other answers, by part."""

    def __init__(self, directory: Path, vendor: Vendor) -> None:
        self.vendor = vendor
        self.early: Vendor | None = None
        self.in_place_of: dict[Part, bytes | Answering] = {}
        self.asked: list[str] = []
        self.server = Outside(directory, self._answer)

    @property
    def sources(self) -> Sources:
        """How a service is told of it."""
        return Sources(
            places=Places(pcs=self.server.url, kds=self.server.url), trusted=self.server.certificate, seconds=20
        )

    def asked_parts(self) -> list[Part]:
        """What it was asked for, in that order."""
        return [PATHS[urlsplit(target).path] for target in self.asked]

    def _answer(self, request: bytes, stream: ssl.SSLSocket) -> None:
        target = request.split(b" ")[1].decode("ascii")
        self.asked.append(target)
        part = PATHS.get(urlsplit(target).path)
        if part is None:
            stream.sendall(said(404))
            return
        other = self.in_place_of.get(part)
        if isinstance(other, bytes):
            stream.sendall(other)
        elif other is not None:
            other(request, stream)
        else:
            vendor = self.early if self.early is not None and "update=early" in target else self.vendor
            headers, body = vendor.answer(part)
            stream.sendall(said(200, body, headers))


def another_signer(vendor: Vendor, *, platform: bool = False) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate of a key that must not sign TCB info: of another root, or of a platform under Intel's."""
    if platform:
        return vendor.platform.certificates.platform, vendor.platform.keys.platform
    other: Holder = issue("Intel SGX TCB Signing", ca=False, curve=ec.SECP256R1())
    return other.certificate, other.key
