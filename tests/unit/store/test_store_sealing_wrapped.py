"""Keys wrapped under what a TEE derives: SGX through Gramine's files, SEV-SNP through the kernel's device."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import StoreError
from ostiary.store.sealing import Sealing
from ostiary.store.sealing.gramine import Identity, gramine_sealing
from ostiary.store.sealing.snp import ask_device, make_request, parse_response, snp_sealing
from ostiary.store.sealing.wrapped import WRAPPED_BYTES, WrappedKey, unwrap, wrap

KEY = bytes(range(32))
TEE_KEY = bytes(range(100, 116))
VECTOR = "6181ceff52102be5c1f2f96b2e974ef73594d7c2c992e49e9df52d6389827a1ffc0b3f91e8e502fbf465267b68da1d32"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.key.tee"


def seal(sealing: Sealing) -> None:
    assert sealing.draft(lambda size: KEY[:size]) == KEY
    sealing.keep()


# The wrapping.


def test_a_wrapped_key_has_the_bytes_that_the_format_says() -> None:
    """Made once by this program; whoever changes the format breaks every sealed store."""
    wrapped = wrap(TEE_KEY, KEY, purpose="test", nonce=bytes(12))
    assert wrapped[:13].hex() == "01" + "00" * 12
    assert wrapped[13:].hex() == VECTOR
    assert len(wrapped) == WRAPPED_BYTES == 61


def test_only_the_same_key_and_purpose_unwrap() -> None:
    wrapped = wrap(TEE_KEY, KEY, purpose="test", nonce=os.urandom(12))
    assert unwrap(TEE_KEY, wrapped, purpose="test") == KEY
    for tee_key, purpose in ((TEE_KEY[::-1], "test"), (TEE_KEY, "other")):
        with pytest.raises(InvalidTag):
            unwrap(tee_key, wrapped, purpose=purpose)


@given(st.integers(0, WRAPPED_BYTES * 8 - 1))
def test_any_changed_bit_is_refused(bit: int) -> None:
    wrapped = bytearray(wrap(TEE_KEY, KEY, purpose="test", nonce=bytes(12)))
    wrapped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidTag):
        unwrap(TEE_KEY, bytes(wrapped), purpose="test")


@given(st.binary(max_size=100))
def test_no_other_bytes_unwrap(data: bytes) -> None:
    with pytest.raises(InvalidTag):
        unwrap(TEE_KEY, data, purpose="test")


def test_a_wrapped_key_is_drafted_then_kept(path: Path) -> None:
    home = WrappedKey(path, derive=lambda: TEE_KEY, purpose="test", advice="")
    assert (home.kept(), home.drafted()) == (None, None)
    assert home.draft(os.urandom) == home.drafted()
    assert home.kept() is None
    home.keep()
    assert home.drafted() is None
    assert home.kept() is not None
    assert (home.place, home.warning) == (str(path), "")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_another_length_is_refused(path: Path) -> None:
    path.write_bytes(bytes(60))
    path.chmod(0o600)
    with pytest.raises(StoreError, match=r"the wrapped database key .* has 60 bytes, expected 61 bytes"):
        WrappedKey(path, derive=lambda: TEE_KEY, purpose="test", advice="").kept()


# SGX, by the files that Gramine shows.


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Gramine's files in an enclave without remote attestation."""
    device = tmp_path / "attestation"
    (device / "keys").mkdir(parents=True)
    (device / "attestation_type").write_text("none")
    (device / "keys" / "_sgx_mrenclave").write_bytes(TEE_KEY)
    (device / "keys" / "_sgx_mrsigner").write_bytes(TEE_KEY[::-1])
    return device


@pytest.mark.parametrize("kind", ["none", "dcap", "epid"])
@pytest.mark.parametrize("identity", Identity)
def test_an_enclave_gets_its_key_back(path: Path, device: Path, identity: Identity, kind: str) -> None:
    (device / "attestation_type").write_text(kind)
    seal(gramine_sealing(path, identity=identity, device=device))
    assert gramine_sealing(path, identity=identity, device=device).kept() == KEY


@pytest.mark.parametrize("other", ["enclave", "identity"])
def test_another_enclave_is_refused(path: Path, device: Path, other: str) -> None:
    seal(gramine_sealing(path, identity=Identity.ENCLAVE, device=device))
    if other == "enclave":
        (device / "keys" / "_sgx_mrenclave").write_bytes(os.urandom(16))
    else:
        (device / "keys" / "_sgx_mrsigner").write_bytes(TEE_KEY)
    again = gramine_sealing(path, identity=Identity.ENCLAVE if other == "enclave" else Identity.SIGNER, device=device)
    with pytest.raises(
        StoreError, match=r"the SGX seal key \(.*\) of this program on this machine does not open it"
    ) as e:
        again.kept()
    assert "before an update of the microcode" in e.value.message


def remove_type(device: Path) -> None:
    (device / "attestation_type").unlink()


def change_type(device: Path) -> None:
    (device / "attestation_type").write_text("simulation")


def write_key(content: bytes) -> Callable[[Path], None]:
    def change(device: Path) -> None:
        (device / "keys" / "_sgx_mrenclave").write_bytes(content)

    return change


def remove_key(device: Path) -> None:
    (device / "keys" / "_sgx_mrenclave").unlink()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (remove_type, "Gramine runs this process without an enclave: .*start it by gramine-sgx, not gramine-direct"),
        (change_type, "says b'simulation', expected none, dcap or epid: this is no SGX enclave that we know"),
        (write_key(b""), "has 0 bytes, expected an SGX seal key of 16"),
        (write_key(bytes(17)), "has 17 bytes, expected an SGX seal key of 16"),
        (write_key(bytes(16)), "is all zeros, expected an SGX seal key: this is no enclave"),
        (remove_key, "No such file or directory: expected a file that Gramine shows in an SGX enclave"),
    ],
)
def test_what_is_no_enclave_is_refused(path: Path, device: Path, change: Callable[[Path], None], match: str) -> None:
    change(device)
    with pytest.raises(StoreError, match=match):
        gramine_sealing(path, identity=Identity.ENCLAVE, device=device).draft(os.urandom)
    assert not path.with_name(path.name + ".draft").exists()


def test_this_host_is_no_enclave(path: Path) -> None:
    with pytest.raises(StoreError, match="runs in no SGX enclave under Gramine: /dev/attestation is absent"):
        gramine_sealing(path, identity=Identity.ENCLAVE).draft(os.urandom)


def test_the_warning_for_the_signer_names_who_can_unseal(path: Path) -> None:
    assert "whoever has the signing key" in gramine_sealing(path, identity=Identity.SIGNER).warning
    assert gramine_sealing(path, identity=Identity.ENCLAVE).warning == ""


# SEV-SNP, by the layouts of the kernel and the firmware.


def answer(key: bytes, status: int = 0) -> bytes:
    """MSG_KEY_RSP: status at 0x00, 28 bytes reserved, the key at 0x20."""
    return struct.pack("<I28x32s", status, key)


def test_a_request_has_the_layout_of_the_kernel() -> None:
    assert make_request(2).hex() == "0000000000000000090000000000000002000000000000000000000000000000"


def test_a_virtual_machine_gets_its_key_back(path: Path) -> None:
    asked: list[bytes] = []

    def call(request: bytes) -> bytes:
        asked.append(request)
        return answer(KEY[::-1])

    seal(snp_sealing(path, vmpl=1, call=call))
    assert snp_sealing(path, vmpl=1, call=call).kept() == KEY
    assert asked == [make_request(1)] * 2


def test_another_virtual_machine_is_refused(path: Path) -> None:
    seal(snp_sealing(path, vmpl=0, call=lambda _: answer(os.urandom(32))))
    with pytest.raises(StoreError, match=r"the SEV-SNP derived key of this program .* does not open it"):
        snp_sealing(path, vmpl=0, call=lambda _: answer(KEY)).kept()


@pytest.mark.parametrize(
    ("response", "match"),
    [
        (b"", "a derived key response of 0 bytes, expected 64"),
        (bytes(65), "a derived key response of 65 bytes, expected 64"),
        (answer(KEY, status=0x16), "refused to derive a key: status 0x16, expected 0; the VMPL"),
        (answer(bytes(32)), "derived a key of zeros"),
    ],
)
def test_a_response_without_a_key_is_refused(response: bytes, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        parse_response(response)


def test_this_host_is_no_snp_machine(path: Path) -> None:
    with pytest.raises(StoreError, match=r"this host is no SEV-SNP virtual machine, .*: /dev/sev-guest is absent"):
        snp_sealing(path, vmpl=0).draft(os.urandom)


def test_a_device_that_refuses_the_request_is_told(tmp_path: Path) -> None:
    """A plain file knows no such request."""
    device = tmp_path / "sev-guest"
    device.touch()
    with pytest.raises(StoreError, match=r"SNP_GET_DERIVED_KEY failed: Inappropriate ioctl for device, exitinfo2 0x0"):
        ask_device(make_request(0), device=device)


def test_a_device_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is a directory: expected the device of SEV-SNP"):
        ask_device(make_request(0), device=tmp_path)


def test_the_device_is_asked_as_the_kernel_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's part is played: it reads the request where the argument points, and writes the response there."""

    def kernel(_: int, number: int, argument: bytearray) -> int:
        assert (number >> 30, number >> 16 & 0x3FFF, number >> 8 & 0xFF, number & 0xFF) == (3, len(argument), 0x53, 1)
        version, request, response, _error = struct.unpack("<B7xQQQ", argument)
        assert version == 1
        assert ctypes.string_at(request, 32) == make_request(3)
        ctypes.memmove(response, answer(KEY), 64)
        return 0

    device = tmp_path / "sev-guest"
    device.touch()
    monkeypatch.setattr("ostiary.store.sealing.snp.fcntl.ioctl", kernel)
    assert parse_response(ask_device(make_request(3), device=device)) == KEY


def test_the_request_number_is_the_kernels(tmp_path: Path) -> None:
    """`sizeof` and `_IOWR` by the C compiler and the kernel's own header."""
    program = (
        "#include <stdio.h>\n#include <stddef.h>\n#include <sys/ioctl.h>\n#include <linux/sev-guest.h>\n"
        'int main(void){printf("%lx %zu %zu %zu %zu %zu", (unsigned long)SNP_GET_DERIVED_KEY,'
        "sizeof(struct snp_guest_request_ioctl), offsetof(struct snp_guest_request_ioctl, resp_data),"
        "sizeof(struct snp_derived_key_req), offsetof(struct snp_derived_key_req, guest_field_select),"
        "sizeof(struct snp_derived_key_resp));}"
    )
    binary = tmp_path / "layout"
    subprocess.run(["gcc", "-x", "c", "-", "-o", str(binary)], input=program.encode(), check=True)
    found = subprocess.run([str(binary)], check=True, capture_output=True).stdout.decode()
    assert found == "c0205301 32 16 32 8 64"
