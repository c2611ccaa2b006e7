"""The machine's half of enrolling a TPM's key, against live TPMs (swtpm): what each opens, and what none does."""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.chains import NOW, issue
from tests.simulators.quoting_tpm import OWNER, command, define, running_tpm
from tests.simulators.tpm import ATTRIBUTES, sized
from tests.simulators.tpm import Tpm as SoftwareTpm
from tests.simulators.tpm_maker import certify, ek_spki, pem

from ostiary.attester.tpm import AZURE_AK, AZURE_HCL_REPORT, TpmAttester
from ostiary.attester.tpm2 import ACTIVATE, ENDORSEMENT, SHA256, Tpm, TpmError
from ostiary.attester.tpm_enrolment import (
    EK_KINDS,
    MAX_CHALLENGE_BYTES,
    make_answer,
    make_offer,
)
from ostiary.errors import EvidenceRefusedError, InputError, OutsideError, RefusedError
from ostiary.evidence.tpm.credential import make_credential
from ostiary.evidence.tpm.enrolment import (
    Pending,
    VerifiedOffer,
    accept_answer,
    make_challenge,
    parse_offer,
    verify_offer,
)
from ostiary.evidence.tpm.layout import parse_public_area, pem_of_key

MAKER = issue("TPM maker")
NULL, PASSWORD = 0x40000007, 0x40000009
ACTIVATE_CREDENTIAL, POLICY_COMMAND_CODE = 0x147, 0x16C
SLOTS = 3
"""Keys that a TPM holds at a time, at least."""


def certified(path: str, kind: str, *, padding: bytes = b"") -> None:
    """Give a running TPM the certificate that its maker puts into it."""
    certificate = certify(ek_spki(path, kind), MAKER).public_bytes(Encoding.DER)
    define(path, EK_KINDS[kind].certificate_index, certificate + padding)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The TPMs of two machines, certified by one maker: the first both of its EKs, the second the RSA one."""
    directory = tmp_path_factory.mktemp
    with running_tpm(directory("one")) as one, running_tpm(directory("other")) as other:
        for path, kind in ((one, "rsa"), (one, "ecc"), (other, "rsa")):
            certified(path, kind)
        yield one, other


@pytest.fixture
def machine(machines: tuple[str, str]) -> str:
    return machines[0]


@pytest.fixture
def other(machines: tuple[str, str]) -> str:
    return machines[1]


@pytest.fixture
def new_machine(tmp_path: Path) -> Iterator[str]:
    """A TPM that nobody certified."""
    with running_tpm(tmp_path) as path:
        yield path


def verified(offer: bytes) -> VerifiedOffer:
    return verify_offer(parse_offer(offer), roots=[MAKER.root()], now=NOW)


def challenge_for(offer: bytes) -> tuple[bytes, Pending]:
    return make_challenge(verified(offer), random=secrets.token_bytes, make_credential=make_credential, now=NOW)


def changed(text: bytes, **changes: object) -> bytes:
    """JSON with other members."""
    return json.dumps({**json.loads(text), **changes}).encode()


def mixed(offer: bytes, other: bytes) -> bytes:
    """The EK of one offer, with the AK of another."""
    return changed(offer, ak_public=json.loads(other)["ak_public"])


def quoting_key(path: str) -> str:
    """The key that quotes of this TPM are signed with, PEM."""
    evidence = json.loads(TpmAttester(path, pcrs=(0,)).attest(bytes(64), None).evidence)
    return pem_of_key(parse_public_area(b64decode(evidence["ak_public"])))


@pytest.mark.parametrize("kind", EK_KINDS)
def test_a_machine_proves_that_the_key_of_its_quotes_is_in_its_tpm(machine: str, kind: str) -> None:
    challenge, pending = challenge_for(make_offer(machine, kind=kind))
    assert accept_answer(make_answer(challenge, machine), pending, now=NOW) == quoting_key(machine)


def test_nothing_is_left_in_the_tpm(machine: str, other: str) -> None:
    challenge, pending = challenge_for(make_offer(machine))
    wrong = changed(challenge, credential=b64encode(bytes(64)).decode())
    for _ in range(SLOTS + 1):
        make_offer(machine)
        with pytest.raises(RefusedError):
            make_answer(wrong, machine)
        accept_answer(make_answer(challenge, machine), pending, now=NOW)


class TestOffer:
    def test_the_first_key_with_a_certificate_is_offered(self, machine: str, new_machine: str) -> None:
        assert parse_offer(make_offer(machine)).ek.kind == "rsa"
        certified(new_machine, "ecc")
        assert parse_offer(make_offer(new_machine)).ek.kind == "ecc"

    def test_what_fills_up_the_index_is_cut_off(self, new_machine: str) -> None:
        certified(new_machine, "rsa", padding=b"\xff" * 100)
        verified(make_offer(new_machine))

    def test_a_certificate_that_the_tpm_does_not_hold_may_be_given(self, new_machine: str) -> None:
        certificate = pem(certify(ek_spki(new_machine, "rsa"), MAKER)).decode()
        assert verified(make_offer(new_machine, certificate=certificate)).ek.kind == "rsa"
        certificate = pem(certify(ek_spki(new_machine, "ecc"), MAKER)).decode()
        assert verified(make_offer(new_machine, certificate=certificate, kind="ecc")).ek.kind == "ecc"

    def test_a_certificate_of_the_other_key_is_refused_by_the_owner(self, machine: str) -> None:
        certificate = pem(certify(ek_spki(machine, "ecc"), MAKER)).decode()
        with pytest.raises(EvidenceRefusedError, match="choose with `ostiary tpm offer --ek`"):
            verified(make_offer(machine, certificate=certificate, kind="rsa"))

    def test_a_tpm_without_a_certificate_is_told(self, new_machine: str) -> None:
        with pytest.raises(OutsideError, match=r"holds no certificate .*index 0x01c00002, 0x01c0000a\); fetch it"):
            make_offer(new_machine)

    def test_a_tpm_without_the_certificate_that_was_asked_for_is_told(self, other: str) -> None:
        with pytest.raises(OutsideError, match=r"holds no certificate .* \(NV index 0x01c0000a\)"):
            make_offer(other, kind="ecc")

    def test_what_is_no_certificate_in_the_tpm_is_told(self, new_machine: str) -> None:
        define(new_machine, EK_KINDS["rsa"].certificate_index, b"\xff" * 700)
        with pytest.raises(OutsideError, match="what the TPM holds in place of its EK's certificate is none"):
            make_offer(new_machine)

    def test_an_endorsement_hierarchy_with_a_password_is_told(self, new_machine: str) -> None:
        certified(new_machine, "rsa")
        challenge, _ = challenge_for(make_offer(new_machine))
        command(new_machine, 0x129, (ENDORSEMENT,), sized(b"password"))  # TPM2_HierarchyChangeAuth
        with pytest.raises(OutsideError, match="its endorsement hierarchy may have a password"):
            make_offer(new_machine)
        with pytest.raises(OutsideError, match="its endorsement hierarchy may have a password"):
            make_answer(challenge, new_machine)

    def test_no_device_is_told(self, tmp_path: Path) -> None:
        for ask in (make_offer, lambda path: make_answer(CHALLENGE, path)):
            with pytest.raises(OutsideError, match=r"tpm: there is no .*the machine has no TPM 2\.0"):
                ask(str(tmp_path / "tpmrm0"))

    def test_azures_key_is_the_one_that_is_offered_and_stays_where_it_is(self, new_machine: str) -> None:
        certified(new_machine, "rsa")
        template = bytes.fromhex("0001 000b 00050072 0000 0010 0014 000b 0800 00000000 0000")
        with Tpm(new_machine) as device:
            key, area = device.create_primary(ENDORSEMENT, template)
            device._command("TPM2_EvictControl", 0x120, [OWNER, key], struct.pack(">I", AZURE_AK))
            device.flush(key)
        define(new_machine, AZURE_HCL_REPORT, b"report")
        challenge, pending = challenge_for(make_offer(new_machine))
        accepted = accept_answer(make_answer(challenge, new_machine), pending, now=NOW)
        assert accepted == pem_of_key(parse_public_area(area))
        command(new_machine, 0x129, (ENDORSEMENT,), sized(b"password"))  # TPM2_HierarchyChangeAuth
        with pytest.raises(OutsideError, match=r"the TPM makes no endorsement key; .* may have a password"):
            make_answer(challenge, new_machine)


class TestAnswer:
    def test_the_challenge_of_another_machine_is_refused(self, machine: str, other: str) -> None:
        challenge, _ = challenge_for(make_offer(machine))
        with pytest.raises(RefusedError, match="for another attestation key than this machine's"):
            make_answer(challenge, other)

    def test_the_endorsement_key_of_another_tpm_is_refused(self, machine: str, other: str) -> None:
        """Somebody pairs the EK of a machine that the owner knows with the AK of his own."""
        challenge, _ = challenge_for(mixed(make_offer(machine), make_offer(other)))
        with pytest.raises(RefusedError, match="for another attestation key than this machine's"):
            make_answer(challenge, machine)
        with pytest.raises(RefusedError, match="for the endorsement key of another TPM"):
            make_answer(challenge, other)

    def test_a_tpm_does_not_open_what_was_made_for_another_attestation_key(self, machine: str, other: str) -> None:
        """Whatever the challenge says, the TPM decides."""
        mine, swapped = make_offer(machine), mixed(make_offer(machine), make_offer(other))
        name = json.loads(challenge_for(mine)[0])["ak_name"]
        challenge = changed(challenge_for(swapped)[0], ak_name=name)
        with pytest.raises(RefusedError, match="the TPM does not open the challenge"):
            make_answer(challenge, machine)

    @pytest.mark.parametrize("kind", EK_KINDS)
    def test_a_tpm_does_not_open_what_was_made_for_another_endorsement_key(
        self, machine: str, other: str, kind: str
    ) -> None:
        mine = make_offer(machine, kind=kind)
        certificate = pem(certify(ek_spki(other, kind), MAKER)).decode()
        theirs = mixed(make_offer(other, kind=kind, certificate=certificate), mine)
        name = json.loads(challenge_for(mine)[0])["ek_name"]
        with pytest.raises(RefusedError, match="the TPM does not open the challenge"):
            make_answer(changed(challenge_for(theirs)[0], ek_name=name), machine)

    @pytest.mark.parametrize("part", ["credential", "encrypted_secret"])
    @pytest.mark.parametrize("kind", EK_KINDS)
    def test_a_changed_challenge_is_refused(self, machine: str, kind: str, part: str) -> None:
        challenge, _ = challenge_for(make_offer(machine, kind=kind))
        data = bytearray(b64decode(json.loads(challenge)[part]))
        data[-1] ^= 1
        with pytest.raises(RefusedError, match="the TPM does not open the challenge"):
            make_answer(changed(challenge, **{part: b64encode(data).decode()}), machine)

    def test_the_answer_to_an_older_challenge_is_refused(self, machine: str) -> None:
        offer = make_offer(machine)
        old, _ = challenge_for(offer)
        _, pending = challenge_for(offer)
        with pytest.raises(EvidenceRefusedError, match="this is the answer to another challenge"):
            accept_answer(make_answer(old, machine), pending, now=NOW)
        with pytest.raises(EvidenceRefusedError, match="the answer is wrong"):
            accept_answer(changed(make_answer(old, machine), id=pending.id.hex()), pending, now=NOW)

    @pytest.mark.parametrize("by_policy", [False, True], ids=["by password", "by policy"])
    def test_a_key_in_software_that_claims_to_be_the_tpms_is_refused_by_the_tpm(
        self, machine: str, by_policy: bool
    ) -> None:
        """The public area of such a key can be loaded, but nothing be activated for it: its private part is missing."""
        area = SoftwareTpm().public_area(attributes=ATTRIBUTES | 1 << 7 if by_policy else ATTRIBUTES)
        step = struct.pack(">II", POLICY_COMMAND_CODE, ACTIVATE_CREDENTIAL)
        policy = hashlib.sha256(bytes(32) + step).digest() if by_policy else b""
        area = area[:8] + sized(policy) + area[10:]
        members = json.loads(challenge_for(changed(make_offer(machine), ak_public=b64encode(area).decode()))[0])
        with Tpm(machine) as device:
            ek, _ = device.create_primary(ENDORSEMENT, EK_KINDS["rsa"].template)
            load = sized(b"") + sized(area) + struct.pack(">I", NULL)
            ak = device._command("TPM2_LoadExternal", 0x167, [], load, sessions=False).number(4)
            sessions = [begin_policy(device), begin_policy(device)]
            device._command(
                "TPM2_PolicyCommandCode",
                POLICY_COMMAND_CODE,
                sessions[:1],
                struct.pack(">I", ACTIVATE_CREDENTIAL),
                sessions=False,
            )
            device._command("TPM2_PolicySecret", 0x151, [ENDORSEMENT, sessions[1]], sized(b"") * 3 + bytes(4))
            first = sessions[0] if by_policy else PASSWORD
            try:
                with pytest.raises(TpmError, match="refuses TPM2_ActivateCredential with code 0x12f"):
                    device._command(
                        ACTIVATE,
                        ACTIVATE_CREDENTIAL,
                        [ak, ek],
                        sized(b64decode(members["credential"])) + sized(b64decode(members["encrypted_secret"])),
                        authorization=b"".join(struct.pack(">IHBH", one, 0, 1, 0) for one in (first, sessions[1])),
                    )
            finally:
                for handle in (ak, ek, *sessions):
                    device.flush(handle)

    def test_what_else_the_tpm_refuses_is_told_with_its_code(self, machine: str) -> None:
        """Here it has no room for one more session."""
        challenge, pending = challenge_for(make_offer(machine))
        held = list(all_sessions(machine))
        try:
            with pytest.raises(TpmError, match="the TPM refuses TPM2_StartAuthSession with code 0x903"):
                make_answer(challenge, machine)
        finally:
            with Tpm(machine) as device:
                for session in held:
                    device.flush(session)
        accept_answer(make_answer(challenge, machine), pending, now=NOW)

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "ostiary-tpm-offer-v1"},
            {"ek": "dsa"},
            {"ek": ["rsa"]},
            {"id": "x"},
            {"id": 1},
            {"ek_name": None},
            {"ak_name": "0"},
            {"credential": "!"},
            {"encrypted_secret": 1},
        ],
        ids=str,
    )
    def test_what_is_no_challenge_is_told(self, change: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="this is not a challenge of `ostiary tpm challenge`"):
            make_answer(changed(CHALLENGE, **change))

    @pytest.mark.parametrize(
        "text",
        [b"", b"\xff", b"[]", b"{}", b"1", b"[" * 10_000, b" " * (MAX_CHALLENGE_BYTES + 1)],
        ids=range(7),
    )
    def test_garbage_is_told(self, text: bytes) -> None:
        with pytest.raises(InputError, match="this is not a challenge of `ostiary tpm challenge`"):
            make_answer(text)


def begin_policy(device: Tpm) -> int:
    """TPM2_StartAuthSession of a policy; the session."""
    start = sized(bytes(16)) + sized(b"") + struct.pack(">BHH", 1, 0x0010, SHA256)
    return device._command("TPM2_StartAuthSession", 0x176, [NULL, NULL], start, sessions=False).number(4)


def all_sessions(path: str) -> Iterator[int]:
    """Sessions until a TPM has room for none."""
    with Tpm(path) as device, suppress(TpmError):
        while True:
            yield begin_policy(device)


CHALLENGE = json.dumps(
    {
        "format": "ostiary-tpm-challenge-v1",
        "id": "69" * 16,
        "ek": "rsa",
        "ek_name": "00",
        "ak_name": "00",
        "credential": "AAAA",
        "encrypted_secret": "AAAA",
    }
).encode()
