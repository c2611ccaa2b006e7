"""The database key in a real TPM in software: what brings it back, what does not, and what each refusal says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.swtpm import Meddler, Swtpm, swtpm
from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMS_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_HA,
    TPMU_HA,
    TSS2_Exception,
)

from ostiary.errors import StoreError
from ostiary.store.sealing.tpm import MAX_PCR, RESETTABLE_PCRS, SealedKey, TpmSealing, decode, encode
from ostiary.tpm import NAME_BYTES, Tpm

KEY = bytes(range(32))
PCRS = (0, 7)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with swtpm(tmp_path / "tpm") as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.key.tpm"


@pytest.fixture
def sealing(tpm: Swtpm, path: Path) -> TpmSealing:
    return TpmSealing(path, tcti=tpm.tcti, pcrs=PCRS)


def seal(sealing: TpmSealing) -> None:
    assert sealing.draft(lambda size: KEY[:size]) == KEY
    sealing.keep()


def extend(tpm: Swtpm, number: int) -> None:
    values = TPML_DIGEST_VALUES([TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=bytes(range(32))))])
    with Tpm(tpm.tcti) as connection:
        connection.esapi.pcr_extend(ESYS_TR(number), values)


def refused(sealing: TpmSealing, match: str) -> StoreError:
    with pytest.raises(StoreError, match=match) as caught:
        sealing.kept()
    return caught.value


def test_a_key_is_drafted_then_kept_and_comes_back_after_a_restart(sealing: TpmSealing, tpm: Swtpm, path: Path) -> None:
    assert (sealing.kept(), sealing.drafted()) == (None, None)
    assert sealing.draft(lambda size: KEY[:size]) == KEY
    assert (sealing.kept(), sealing.drafted()) == (None, KEY)
    sealing.keep()
    assert (sealing.kept(), sealing.drafted()) == (KEY, None)
    tpm.restart()
    assert sealing.kept() == KEY
    assert path.stat().st_mode & 0o777 == 0o600
    assert KEY.hex() not in path.read_text()


def test_keys_are_sealed_again_and_again_without_filling_the_tpm(sealing: TpmSealing) -> None:
    for _ in range(10):
        sealing.draft(os.urandom)
    sealing.keep()
    assert sealing.kept() is not None


def test_a_changed_pcr_is_refused_by_number_with_both_values(sealing: TpmSealing, tpm: Swtpm) -> None:
    seal(sealing)
    extend(tpm, 7)
    error = refused(sealing, "PCR 7 changed since the key was sealed, so this machine was started with other firmware")
    assert len(error.causes) == 1
    assert error.causes[0].startswith("PCR 7: found ")
    assert error.causes[0].endswith("expected " + "00" * 32)
    extend(tpm, 0)
    assert len(refused(sealing, "PCR 0, 7 changed").causes) == 2
    tpm.restart()
    assert sealing.kept() == KEY


def test_a_pcr_that_was_not_chosen_may_change(sealing: TpmSealing, tpm: Swtpm) -> None:
    seal(sealing)
    extend(tpm, 8)
    assert sealing.kept() == KEY


def test_all_pcrs_that_prove_something_can_be_chosen(tpm: Swtpm, path: Path) -> None:
    """More than the eight that a TPM tells at a time."""
    chosen = sorted(set(range(MAX_PCR + 1)) - RESETTABLE_PCRS)
    sealing = TpmSealing(path, tcti=tpm.tcti, pcrs=chosen)
    seal(sealing)
    assert sealing.kept() == KEY
    extend(tpm, 15)
    refused(sealing, "PCR 15 changed")


@pytest.mark.parametrize("pcrs", [(), (16,), (7, 23), (24,), (-1,)])
def test_no_pcr_or_one_that_anybody_may_reset_is_a_mistake(path: Path, pcrs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected one or more of 0 to 23"):
        TpmSealing(path, tcti="none", pcrs=pcrs)


def test_other_pcrs_than_it_was_sealed_under_are_refused(sealing: TpmSealing, tpm: Swtpm, path: Path) -> None:
    seal(sealing)
    refused(TpmSealing(path, tcti=tpm.tcti, pcrs=(7,)), r"was sealed under PCR 0, 7, expected 7: configure the PCRs")


@pytest.mark.parametrize("how", ["cleared", "another TPM"])
def test_another_or_a_cleared_tpm_is_refused(sealing: TpmSealing, tpm: Swtpm, tmp_path: Path, how: str) -> None:
    seal(sealing)
    if how == "cleared":
        with Tpm(tpm.tcti) as connection:
            connection.esapi.clear(ESYS_TR.LOCKOUT)
    else:
        tpm.kill()
        for file in (tmp_path / "tpm").iterdir():
            file.unlink()
        tpm.start()
    refused(sealing, "was sealed by another TPM than .*, or this one was cleared since")


def test_a_tpm_without_power_is_told(sealing: TpmSealing, tpm: Swtpm) -> None:
    seal(sealing)
    tpm.kill()
    refused(sealing, "connecting failed: it does not answer; see that it is there")
    with pytest.raises(StoreError, match="it does not answer"):
        sealing.draft(os.urandom)
    tpm.start()
    assert sealing.kept() == KEY


def test_a_host_without_a_tpm_is_told(tmp_path: Path, sealing: TpmSealing, path: Path) -> None:
    seal(sealing)
    absent = tmp_path / "tpmrm0"
    refused(TpmSealing(path, tcti=f"device:{absent}", pcrs=PCRS), f"this host has no TPM 2.0 at {absent}: switch it on")


def test_a_tpm_that_is_not_ours_to_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`access` of the kernel says yes to root for everything, so its answer is put in place."""
    device = tmp_path / "tpmrm0"
    device.touch()
    monkeypatch.setattr("ostiary.tpm.os.access", lambda *_: False)
    with pytest.raises(StoreError, match="is not ours to use: run as a user of its group, often tss"):
        Tpm(f"device:{device}")


def test_an_owner_hierarchy_with_a_password_is_told(sealing: TpmSealing, tpm: Swtpm) -> None:
    seal(sealing)
    with Tpm(tpm.tcti) as connection:
        connection.esapi.hierarchy_change_auth(ESYS_TR.OWNER, b"secret")
    refused(
        sealing, "making the storage key failed: it wants another authorization; the owner hierarchy must have none"
    )


def test_a_locked_tpm_is_told(tpm: Swtpm) -> None:
    """Locked as others lock it: by wrong passwords for an object that counts them."""
    with Tpm(tpm.tcti) as connection:
        tss = connection.esapi
        tss.dictionary_attack_parameters(1, 1000, 1000)
        template = TPM2B_PUBLIC.parse("keyedhash", objectAttributes=TPMA_OBJECT.USERWITHAUTH)
        private, public, *_ = tss.create(
            connection.storage_key,
            TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=b"right", data=b"data")),
            template,
        )
        item = tss.load(connection.storage_key, private, public)
        tss.tr_set_auth(item, b"wrong")
        with pytest.raises(TSS2_Exception):
            tss.unseal(item)
        with (
            pytest.raises(StoreError, match="trying failed: it is locked after wrong authorizations, by whatever prog"),
            connection.explained("trying"),
        ):
            tss.unseal(item)


def test_a_tpm_that_spares_its_memory_is_told(tpm: Swtpm) -> None:
    """No emulator does that, so the code is raised as the TSS would."""

    def slowed(connection: Tpm) -> None:
        with connection.explained("extending"):
            raise TSS2_Exception(0x920)

    with Tpm(tpm.tcti) as connection, pytest.raises(StoreError, match="it slows writes down to spare its memory"):
        slowed(connection)


def test_a_tpm_without_the_bank_is_told(sealing: TpmSealing, tpm: Swtpm) -> None:
    with Tpm(tpm.tcti) as connection:
        none_of_it = TPMS_PCR_SELECTION(hash=TPM2_ALG.SHA256, sizeofSelect=3, pcrSelect=bytes(3))
        connection.esapi.pcr_allocate(TPML_PCR_SELECTION([none_of_it]))
    tpm.restart()
    with pytest.raises(StoreError, match="has no PCR 0 in the bank SHA-256: allocate that bank in the firmware"):
        sealing.draft(os.urandom)


def test_a_key_that_does_not_come_out_again_seals_nothing(
    sealing: TpmSealing, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.sealing.tpm._unseal", lambda *_: bytes(32))
    with pytest.raises(StoreError, match="unsealed another key than it was given: use another TPM"):
        sealing.draft(os.urandom)
    assert not path.with_name(path.name + ".draft").exists()


def test_what_others_left_in_the_tpm_is_told(tpm: Swtpm) -> None:
    with Tpm(tpm.tcti) as connection:
        template = TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes="restricted|decrypt|sensitivedataorigin")

        def make_keys() -> None:
            with connection.explained("making keys"):
                for _ in range(10):
                    connection.esapi.create_primary(None, template, ESYS_TR.NULL)

        with pytest.raises(StoreError, match="other programs left too much in it; go through a resource manager"):
            make_keys()


def test_bytes_that_the_tpm_did_not_seal_are_refused(sealing: TpmSealing, path: Path) -> None:
    seal(sealing)
    sealed = decode(path.read_bytes())
    private = bytearray(sealed.private)
    private[-1] ^= 1
    path.write_bytes(
        encode(
            SealedKey(storage_key=sealed.storage_key, pcrs=sealed.pcrs, public=sealed.public, private=bytes(private))
        )
    )
    refused(sealing, "did not seal these bytes: they were changed, put the right file in its place")


def test_bytes_that_are_no_tpm_structures_are_refused(sealing: TpmSealing, path: Path) -> None:
    seal(sealing)
    sealed = decode(path.read_bytes())
    path.write_bytes(encode(replace(sealed, public=b"\x00\x01")))
    refused(sealing, "unsealing .* failed")


@pytest.mark.parametrize(
    "content",
    [b"\x00", b"[]", b'"text"', b"{}", b'{"format": "other"}', b"\xff"],
)
def test_a_file_of_another_form_is_refused(sealing: TpmSealing, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    refused(sealing, "does not hold a key sealed to a TPM, as ostiary-tpm-sealed-key-v1 says")


@pytest.mark.parametrize("member", ["storage_key", "pcrs", "public", "private"])
@pytest.mark.parametrize("value", [None, 7, "zz", "00", {"a": "00"}, {"7": "00"}])
def test_a_file_with_another_member_is_refused(sealing: TpmSealing, path: Path, member: str, value: object) -> None:
    seal(sealing)
    path.write_text(json.dumps({**json.loads(path.read_text()), member: value}))
    with pytest.raises(StoreError, match=r"does not hold a key sealed to a TPM|unsealing .* failed"):
        sealing.kept()


@given(
    st.builds(
        SealedKey,
        storage_key=st.binary(min_size=NAME_BYTES, max_size=NAME_BYTES),
        pcrs=st.dictionaries(st.integers(0, 23), st.binary(min_size=32, max_size=32)),
        public=st.binary(max_size=50),
        private=st.binary(max_size=50),
    )
)
def test_a_file_says_what_was_written(sealed: SealedKey) -> None:
    assert decode(encode(sealed)) == sealed


def test_the_key_never_crosses_the_bus_in_the_clear(tpm: Swtpm, path: Path) -> None:
    """Neither when it is sealed nor when it is unsealed: both commands were seen, and the key in none of them."""
    wire: list[bytes] = []

    def listen(command: bytes, ask: Callable[[bytes], bytes]) -> bytes:
        wire.extend((command, ask(command)))
        return wire[-1]

    between = Meddler(tpm, listen)
    try:
        sealing = TpmSealing(path, tcti=between.tcti, pcrs=PCRS)
        seal(sealing)
        assert sealing.kept() == KEY
    finally:
        between.close()
    create, unseal = 0x153, 0x15E
    assert {create, unseal} <= {int.from_bytes(message[6:10], "big") for message in wire}
    assert not any(KEY in message for message in wire)


def test_another_storage_key_put_in_between_is_refused(sealing: TpmSealing, tpm: Swtpm, tmp_path: Path) -> None:
    """Whoever stands in for the TPM with a TPM of his own does not get to see the key."""
    seal(sealing)
    with swtpm(tmp_path / "foreign") as foreign:
        refused(TpmSealing(tmp_path / "database.key.tpm", tcti=foreign.tcti, pcrs=PCRS), "was sealed by another TPM")


def test_the_warning_says_what_a_tpm_does_not_do(sealing: TpmSealing, path: Path) -> None:
    assert "under PCR 0, 7" in sealing.warning
    assert "not from whoever is root on this machine while it runs" in sealing.warning
    assert sealing.place == str(path)
