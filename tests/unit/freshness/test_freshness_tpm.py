"""The TPM anchor against a real TPM in software: what it follows, what it refuses, and what survives a power cut."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.swtpm import Meddler, Swtpm
from tpm2_pytss import ESYS_TR, TPM2_ALG, TPM2_NT, TPM2B_NV_PUBLIC, TPMA_NV, TPMS_NV_PUBLIC, TSS2_Exception

from ostiary.audit import Frontier
from ostiary.errors import RollbackError, StoreError
from ostiary.freshness import tpm as tpm_anchor
from ostiary.freshness.tpm import DEFAULT_INDEX, NOTHING, Link, TpmAnchor
from ostiary.store import Head
from ostiary.store.sealing.drafted import DraftedFile
from ostiary.tpm import RC_NV_UNINITIALIZED, Tpm

KEY = bytes(range(32))


@dataclass(frozen=True)
class History:
    """What a store shows an anchor: its head and its leaves. Each commit has one leaf; an epoch none."""

    name: str = ""
    seq: int = 0
    leaves: tuple[bytes, ...] = ()

    def commit(self, *leaves: bytes) -> History:
        return History(self.name + "/" + repr(leaves), self.seq + 1, (*self.leaves, *leaves))

    def grown(self, commits: int) -> History:
        grown = self
        for number in range(commits):
            grown = grown.commit(b"%d" % number)
        return grown

    @property
    def head(self) -> Head:
        log = Frontier()
        for leaf in self.leaves:
            log = log.append(leaf)
        digest = hashlib.sha256(f"{self.name}{self.seq}".encode()).digest()
        return Head(seq=self.seq, digest=digest, log_size=len(self.leaves), log_root=log.root)

    def settle(self, anchor: TpmAnchor) -> None:
        anchor.settle(self.head, self.since)

    def since(self, start: int) -> Iterator[bytes]:
        return iter(self.leaves[start:])


NEW = History()


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "anchor.tpm"


@pytest.fixture
def opened(tpm: Swtpm, memory: Path) -> Callable[..., TpmAnchor]:
    def make(path: Path = memory, database_key: bytes = KEY, index: int = DEFAULT_INDEX) -> TpmAnchor:
        return TpmAnchor(path, database_key=database_key, tcti=tpm.tcti, index=index)

    return make


@contextmanager
def closing(anchor: TpmAnchor) -> Iterator[TpmAnchor]:
    """An emulated TPM takes one connection at a time."""
    try:
        yield anchor
    finally:
        anchor.close()


Opened = Callable[..., TpmAnchor]


def settle(anchor: TpmAnchor, *histories: History) -> None:
    """Settle one after the other, and close."""
    with closing(anchor):
        for history in histories:
            history.settle(anchor)


def refused(anchor: TpmAnchor, history: History, match: str) -> RollbackError:
    with closing(anchor), pytest.raises(RollbackError, match=match) as caught:
        history.settle(anchor)
    return caught.value


def test_what_was_settled_may_be_opened_again_and_go_on(opened: Opened) -> None:
    one = NEW.commit(b"one")
    settle(opened(), NEW, NEW, one, one)
    settle(opened(), one, one.commit(), one.commit().commit(b"two"))


def test_many_commits_at_once_are_one_step(opened: Opened) -> None:
    """The bounded mode, or a start after a crash: the anchor goes straight to the newest head."""
    settle(opened(), NEW, NEW.grown(40))
    settle(opened(), NEW.grown(40))


def test_an_older_state_is_refused_with_both_numbers(opened: Opened) -> None:
    settle(opened(), NEW, NEW.grown(1), NEW.grown(3))
    for seq in (0, 1, 2):
        error = refused(opened(), NEW.grown(seq), "the database is older than NV index 0x01804f53 of the TPM")
        assert f"found commit {seq}, expected 3 or later" in error.message
        assert "ostiary store accept-rollback" in error.message


def test_a_refused_state_does_not_move_the_anchor(opened: Opened) -> None:
    settle(opened(), NEW, NEW.grown(3))
    refused(opened(), NEW.grown(2), "older")
    settle(opened(), NEW.grown(3), NEW.grown(4))


def test_another_state_of_the_same_number_is_refused(opened: Opened) -> None:
    """A counter would take it: this is why the anchor holds a digest."""
    settle(opened(), NEW, NEW.grown(2), NEW.grown(2).commit(b"acknowledged"))
    error = refused(opened(), NEW.grown(2).commit(b"never acknowledged"), "is a fork of the one that")
    assert "found commit 3 with digest" in error.message


def test_a_later_state_of_another_history_is_refused(opened: Opened) -> None:
    settle(opened(), NEW, NEW.grown(2), NEW.grown(2).commit(b"acknowledged"))
    fork = NEW.grown(2).commit(b"never acknowledged").grown(5)
    refused(opened(), fork, "commit 8 did not grow out of the state that was anchored: .*: a fork")


def test_a_shorter_log_under_a_higher_number_is_refused(opened: Opened) -> None:
    settle(opened(), NEW, NEW.grown(3))
    refused(opened(), replace(NEW.grown(2), seq=9), "audit log of 2 entries is not a continuation of the 3 entries")


def test_leaves_that_do_not_give_the_heads_root_are_refused(opened: Opened) -> None:
    with closing(opened()) as anchor:
        NEW.settle(anchor)
        with pytest.raises(RollbackError, match="did not grow out of"):
            anchor.settle(NEW.grown(1).head, NEW.commit(b"other").since)


def test_database_and_memory_put_back_together_are_refused(opened: Opened, memory: Path) -> None:
    settle(opened(), NEW, NEW.grown(1))
    old = memory.read_bytes()
    settle(opened(), NEW.grown(2), NEW.grown(3))
    memory.write_bytes(old)
    error = refused(opened(), NEW.grown(1), "vouches for another state than commit 1, the last that")
    assert "both were put back to an earlier time" in error.message
    assert error.causes[0].startswith("found value ")


def test_a_memory_that_is_gone_is_refused(opened: Opened, memory: Path) -> None:
    settle(opened(), NEW, NEW.grown(1))
    memory.unlink()
    refused(opened(), NEW.grown(1), "anchor.tpm is gone, which says what NV index .* vouches for: put it back")


def test_a_store_with_commits_is_not_taken_for_a_first_start(opened: Opened) -> None:
    """Nor is one whose memory was deleted together with the index."""
    refused(opened(), NEW.grown(1), "is gone: the TPM was cleared or exchanged, the index deleted, or this store never")


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"format": "other"}',
        b'{"format": "ostiary-tpm-anchor-v1", "last": null, "next": null}',
        (
            b'{"format": "ostiary-tpm-anchor-v1", "last": null, "next": {"before": "00", "seq": 0, "digest": "00", '
            b'"log": "0000000000000000"}}'
        ),
        (
            b'{"format": "ostiary-tpm-anchor-v1", "last": null, "next": {"before": "00", "seq": "0", "digest": "00", '
            b'"log": ""}}'
        ),
        (
            b'{"format": "ostiary-tpm-anchor-v1", "last": null, "next": {"before": "00", "seq": 0, "digest": "00", '
            b'"log": "00"}}'
        ),
    ],
)
def test_a_memory_of_another_form_is_refused(opened: Opened, memory: Path, content: bytes) -> None:
    memory.write_bytes(content)
    memory.chmod(0o600)
    with closing(opened()) as anchor, pytest.raises(StoreError, match="does not hold the memory of a TPM anchor"):
        NEW.settle(anchor)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("before", "00"),
        ("digest", "00"),
        ("seq", "0"),
        ("seq", -1),
        ("seq", 1 << 64),
        ("seq", True),
        ("log", "00"),
        ("log", None),
        ("before", 5),
    ],
)
def test_a_memory_with_another_member_is_refused(opened: Opened, memory: Path, member: str, value: object) -> None:
    settle(opened(), NEW)
    document = json.loads(memory.read_text())
    document["next"][member] = value
    memory.write_text(json.dumps(document))
    with closing(opened()) as anchor, pytest.raises(StoreError, match="does not hold the memory of a TPM anchor"):
        NEW.settle(anchor)


@given(st.binary(max_size=300))
def test_no_bytes_make_a_memory_raise_anything_undocumented(content: bytes) -> None:
    with pytest.raises(StoreError, match="does not hold the memory"):
        tpm_anchor._decode(content, Path("memory"))


def test_a_forged_memory_does_not_hash_to_the_value(opened: Opened, memory: Path) -> None:
    """Whoever writes the file cannot make the TPM vouch for an older state."""
    settle(opened(), NEW, NEW.grown(1), NEW.grown(2))
    content = memory.read_text()
    older = NEW.grown(1).head
    for old, new in (('"seq": 2', '"seq": 1'), (NEW.grown(2).head.digest.hex(), older.digest.hex())):
        assert old in content
        content = content.replace(old, new)
    memory.write_text(content)
    refused(opened(), NEW.grown(1), "vouches for another state")


# Crashes: at any moment between two acts of `settle`, and of the TPM itself.


class _KilledError(Exception): ...


@pytest.mark.parametrize("moment", ["before the memory", "before the TPM", "after the TPM"])
@pytest.mark.parametrize("first", [True, False], ids=["first start", "later"])
def test_a_crash_at_any_moment_needs_no_person(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, moment: str, first: bool
) -> None:
    before, now = (NEW, NEW) if first else (NEW.grown(2), NEW.grown(3))
    if not first:
        settle(opened(), NEW, before)

    def killed(*_: object) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        if moment == "before the memory":
            patch.setattr(DraftedFile, "draft", killed)
        elif moment == "before the TPM":
            patch.setattr(tpm_anchor._Index, "extend", killed)
        else:
            extend = tpm_anchor._Index.extend

            def extended(index: tpm_anchor._Index, data: bytes) -> None:
                extend(index, data)
                raise _KilledError

            patch.setattr(tpm_anchor._Index, "extend", extended)
        with closing(opened()) as anchor, pytest.raises(_KilledError):
            now.settle(anchor)
    # The database had the head before the anchor was asked, so it is there at the next start.
    settle(opened(), now, now.commit(b"next"))
    refused(opened(), now, "older")


@pytest.mark.parametrize("moment", ["before the TPM", "after the TPM"])
def test_a_state_that_was_to_be_anchored_when_the_machine_stopped(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Not acknowledged: if the TPM never heard of it, the state before may go on; if it did, nothing else may."""
    settle(opened(), NEW, NEW.grown(2))
    extend = tpm_anchor._Index.extend

    def killed(index: tpm_anchor._Index, data: bytes) -> None:
        if moment == "after the TPM":
            extend(index, data)
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(tpm_anchor._Index, "extend", killed)
        with closing(opened()) as anchor, pytest.raises(_KilledError):
            NEW.grown(3).settle(anchor)
    if moment == "after the TPM":
        refused(opened(), NEW.grown(2), "found commit 2, expected 3 or later")
        return
    other = NEW.grown(2).commit(b"other")
    settle(opened(), NEW.grown(2), other)
    refused(opened(), NEW.grown(3), "is a fork")


def test_a_restart_of_the_tpm_in_between_is_met_with_a_new_connection(opened: Opened, tpm: Swtpm) -> None:
    with closing(opened()) as anchor:
        NEW.settle(anchor)
        for seq in range(1, 5):
            tpm.restart()
            NEW.grown(seq).settle(anchor)
    refused(opened(), NEW.grown(3), "older")


def test_a_tpm_without_power_is_told_and_works_when_it_is_back(opened: Opened, tpm: Swtpm) -> None:
    with closing(opened()) as anchor:
        NEW.settle(anchor)
        tpm.kill()
        for _ in range(2):
            with pytest.raises(StoreError, match="connecting failed: it does not answer") as caught:
                NEW.grown(1).settle(anchor)
            assert not isinstance(caught.value, RollbackError)
        tpm.start()
        NEW.grown(1).settle(anchor)


def test_the_power_goes_while_the_anchor_moves(opened: Opened, tpm: Swtpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right before or after the TPM's own act; the retry within `settle` finds out which, and no state is lost."""
    extend = tpm_anchor._Index.extend
    for number, after in enumerate((False, True, False, True)):

        def cut(index: tpm_anchor._Index, data: bytes, *, after: bool = after) -> None:
            monkeypatch.setattr(tpm_anchor._Index, "extend", extend)
            if after:
                extend(index, data)
            tpm.restart()
            if not after:
                extend(index, data)

        with closing(opened()) as anchor:
            NEW.grown(number).settle(anchor)
            monkeypatch.setattr(tpm_anchor._Index, "extend", cut)
            NEW.grown(number + 1).settle(anchor)
        refused(opened(), NEW.grown(number), "older")


def _settle_on(tcti: str, memory: Path, done: int, count: int) -> None:
    anchor = TpmAnchor(memory, database_key=KEY, tcti=tcti)
    for seq in range(done, done + count):
        NEW.grown(seq).settle(anchor)
    anchor.close()


def test_the_service_is_killed_while_the_anchor_moves(opened: Opened, tpm: Swtpm, memory: Path) -> None:
    """SIGKILL at moments nobody chose; whatever the TPM then holds, a start with the newest database goes on."""
    settle(opened(), NEW)
    newest = 0
    for turn in range(12):
        process = multiprocessing.get_context("spawn").Process(target=_settle_on, args=(tpm.tcti, memory, newest, 200))
        process.start()
        process.join(0.3 + 0.02 * turn)
        process.kill()
        process.join()
        # What the process left in the TPM, a resource manager would flush; this TPM has none.
        tpm.restart()
        # The database was ahead of the anchor, never behind.
        newest += 200
        with closing(opened()) as anchor:
            NEW.grown(newest).settle(anchor)


# Others at the same index.


def test_two_processes_on_two_copies_are_told_as_a_fork(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the same value, both move it: the TPM lets one of them win, and the other sees it."""
    settle(opened(), NEW, NEW.grown(2))
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "anchor.tpm"
    copy.write_bytes((tmp_path / "anchor.tpm").read_bytes())
    copy.chmod(0o600)
    mine, theirs = NEW.grown(2).commit(b"mine"), NEW.grown(2).commit(b"theirs")
    extend = tpm_anchor._Index.extend
    first = opened()

    def overtaken(index: tpm_anchor._Index, data: bytes) -> None:
        # They had read the value already; their step comes between our reading and ours.
        monkeypatch.setattr(tpm_anchor._Index, "extend", extend)
        extend(index, Link(before=NOTHING, seq=3, digest=theirs.head.digest, log=Frontier()).data)
        extend(index, data)

    monkeypatch.setattr(tpm_anchor._Index, "extend", overtaken)
    with closing(first), pytest.raises(RollbackError, match="was moved by somebody else while commit 3") as caught:
        mine.settle(first)
    assert "a fork" in caught.value.message
    # From then on neither copy is believed, until the owner says which one is right.
    refused(opened(), mine, "vouches for another state")
    refused(opened(copy), theirs, "vouches for another state")


def test_a_copy_that_runs_later_stops_the_original(opened: Opened, tmp_path: Path, memory: Path) -> None:
    settle(opened(), NEW, NEW.grown(2))
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "anchor.tpm"
    copy.write_bytes(memory.read_bytes())
    copy.chmod(0o600)
    settle(opened(copy), NEW.grown(2).commit(b"theirs"))
    refused(opened(), NEW.grown(2).commit(b"mine"), "vouches for another state")


def test_processes_that_share_the_memory_take_turns(opened: Opened) -> None:
    """Each reads value and memory anew, so one goes on where another one stopped."""
    for seq in range(6):
        settle(opened(), NEW.grown(seq))


def test_an_index_of_another_store_is_refused(opened: Opened, tmp_path: Path) -> None:
    settle(opened(), NEW)
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other" / "anchor.tpm", database_key=bytes(32))
    error = refused(other, NEW, "is not the one that this store made: another program uses that index")
    assert "authorization" in error.causes[0]
    settle(
        opened(tmp_path / "other" / "anchor.tpm", database_key=bytes(32), index=DEFAULT_INDEX + 1), NEW, NEW.grown(1)
    )


@pytest.mark.parametrize("handle", [0x01400000, 0x017FFFFF, 0x01C00000])
def test_only_an_owners_index_is_taken(opened: Opened, handle: int) -> None:
    with pytest.raises(ValueError, match=f"an NV index {handle:#010x}, expected one of 0x01800000"):
        opened(index=handle)


def undefine(tpm: Swtpm) -> None:
    with Tpm(tpm.tcti) as connection:
        index = connection.esapi.tr_from_tpmpublic(DEFAULT_INDEX)
        connection.esapi.nv_undefine_space(index)


def define(tpm: Swtpm, attributes: int, size: int = 32, authorization: bytes = b"") -> None:
    public = TPMS_NV_PUBLIC(nvIndex=DEFAULT_INDEX, nameAlg=TPM2_ALG.SHA256, attributes=attributes, dataSize=size)
    with Tpm(tpm.tcti) as connection:
        connection.esapi.nv_define_space(authorization, TPM2B_NV_PUBLIC(public), session1=ESYS_TR.PASSWORD)


def test_an_index_that_was_deleted_is_not_made_again(opened: Opened, tpm: Swtpm) -> None:
    settle(opened(), NEW, NEW.grown(1))
    undefine(tpm)
    for history in (NEW.grown(1), NEW):
        refused(opened(), history, "is gone: the TPM was cleared or exchanged, the index deleted")


EXTENDED = TPM2_NT.EXTEND << TPMA_NV.TPM2_NT_SHIFT
ORDINARY = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        (ORDINARY | EXTENDED, 32),
        (ORDINARY, 32),
        (ORDINARY | EXTENDED | TPMA_NV.OWNERWRITE, 32),
        (ORDINARY | EXTENDED | TPMA_NV.ORDERLY, 32),
        (ORDINARY | (TPM2_NT.COUNTER << TPMA_NV.TPM2_NT_SHIFT), 8),
    ],
    ids=["another authorization", "writable", "by the owner", "in memory only", "counter"],
)
def test_an_index_that_somebody_made_in_place_of_ours_is_refused(
    opened: Opened, tpm: Swtpm, attributes: int, size: int
) -> None:
    settle(opened(), NEW, NEW.grown(1))
    undefine(tpm)
    define(tpm, attributes, size)
    refused(opened(), NEW.grown(1), "is not the one that this store made")


def test_an_index_made_anew_with_the_right_authorization_is_refused_for_its_value(opened: Opened, tpm: Swtpm) -> None:
    """As after a first start with the same key that was cut short; a store with commits needs more."""
    settle(opened(), NEW, NEW.grown(1))
    undefine(tpm)
    define(tpm, ORDINARY | EXTENDED, authorization=opened()._authorization)
    refused(opened(), NEW.grown(1), "vouches for another state")


@pytest.mark.parametrize("how", ["cleared", "another TPM"])
def test_a_cleared_or_exchanged_tpm_is_refused(opened: Opened, tpm: Swtpm, tmp_path: Path, how: str) -> None:
    settle(opened(), NEW, NEW.grown(1))
    if how == "cleared":
        with Tpm(tpm.tcti) as connection:
            connection.esapi.clear(ESYS_TR.LOCKOUT)
    else:
        tpm.kill()
        for file in (tmp_path / "tpm").iterdir():
            file.unlink()
        tpm.start()
    refused(opened(), NEW.grown(1), "is gone: the TPM was cleared or exchanged")


def fill(tpm: Swtpm, first: int, size: int) -> None:
    """Define indices until the TPM refuses."""
    with Tpm(tpm.tcti) as connection:
        for handle in range(first, first + 0x1000):
            public = TPMS_NV_PUBLIC(nvIndex=handle, nameAlg=TPM2_ALG.SHA256, attributes=ORDINARY, dataSize=size)
            connection.esapi.nv_define_space(b"", TPM2B_NV_PUBLIC(public), session1=ESYS_TR.PASSWORD)


def test_a_tpm_whose_memory_is_full_is_told(opened: Opened, tpm: Swtpm) -> None:
    # What is left when no large index fits, small ones take.
    for first, size in ((0x01810000, 2048), (0x01820000, 8)):
        with pytest.raises(TSS2_Exception, match="NV"):
            fill(tpm, first, size)
    with (
        closing(opened()) as anchor,
        pytest.raises(StoreError, match=r"defining .* failed: its memory is full"),
    ):
        NEW.settle(anchor)


# Recovery on purpose.


REMEMBERED = {
    "older": (
        f"head 3, digest {NEW.grown(3).head.digest.hex()}, 3 leaves with the root {NEW.grown(3).head.log_root.hex()}",
    ),
    "index gone": (),
}


@pytest.mark.parametrize("loss", ["older", "memory gone", "index gone", "fork"])
def test_an_owner_accepts_a_state_on_purpose(opened: Opened, tpm: Swtpm, memory: Path, loss: str) -> None:
    settle(opened(), NEW, NEW.grown(1), NEW.grown(3))
    kept = NEW.grown(1)
    if loss == "memory gone":
        memory.unlink()
    elif loss == "index gone":
        undefine(tpm)
    elif loss == "fork":
        kept = NEW.grown(2).commit(b"other")
    with closing(opened()) as anchor:
        with pytest.raises(RollbackError):
            kept.settle(anchor)
        told = anchor.remembered()
        anchor.forget()
        assert anchor.remembered() == ()
        kept.settle(anchor)
    assert told == REMEMBERED.get(loss, told)
    assert len(told) == (loss != "index gone")
    settle(opened(), kept.commit(b"on"))
    refused(opened(), NEW.grown(3), "fork|older|did not grow out")


def test_a_store_without_anchor_takes_one_on_purpose(opened: Opened) -> None:
    with closing(opened()) as anchor:
        anchor.forget()
    settle(opened(), NEW.grown(7), NEW.grown(8))
    refused(opened(), NEW.grown(7), "older")


def test_what_was_forgotten_once_is_not_forgotten_again(opened: Opened, memory: Path) -> None:
    """The file of that moment put back does not help: the mark is in the TPM, under what came after it."""
    settle(opened(), NEW, NEW.grown(3))
    with closing(opened()) as anchor:
        anchor.forget()
    marked = memory.read_bytes()
    settle(opened(), NEW.grown(2))
    memory.write_bytes(marked)
    for seq in (1, 2, 3):
        error = refused(opened(), NEW.grown(seq), "vouches for another state than no commit at all")
        assert "put back" in error.message


def test_a_file_cannot_claim_that_everything_was_forgotten(opened: Opened, memory: Path) -> None:
    settle(opened(), NEW, NEW.grown(1))
    before = json.loads(memory.read_text())["next"]["before"]
    forged = {"format": tpm_anchor.FORMAT, "last": None, "next": {"before": before, "forgotten": True}}
    memory.write_text(json.dumps(forged))
    refused(opened(), NEW.grown(1), "vouches for another state")


def test_an_index_of_another_program_is_not_overwritten(opened: Opened, tpm: Swtpm) -> None:
    define(tpm, ORDINARY | EXTENDED)
    with closing(opened()) as anchor, pytest.raises(RollbackError, match="another program uses that index"):
        anchor.forget()


# The way to the TPM.


Ask = Callable[[bytes], bytes]

NV_READ, NV_EXTEND = 0x14E, 0x136


def code(command: bytes) -> int:
    return int.from_bytes(command[6:10], "big")


def test_the_authorization_never_goes_to_the_tpm_in_the_clear(opened: Opened, tpm: Swtpm, memory: Path) -> None:
    wire: list[bytes] = []

    def listen(command: bytes, ask: Ask) -> bytes:
        wire.extend((command, ask(command)))
        return wire[-1]

    with meddler(tpm, listen) as tcti:
        anchor = TpmAnchor(memory, database_key=KEY, tcti=tcti)
        settle(anchor, NEW, NEW.grown(1))
    assert {NV_READ, NV_EXTEND} <= {code(message) for message in wire}
    assert not any(anchor._authorization in message for message in wire)


@pytest.mark.parametrize("forgery", ["an older answer", "a bit", "a step left out", "nothing was ever written"])
def test_whoever_sits_on_the_way_cannot_answer_for_the_tpm(
    opened: Opened, tpm: Swtpm, memory: Path, forgery: str
) -> None:
    """Not by repeating what the TPM said before, nor by changing it, nor by leaving a step out."""
    answers: dict[int, list[bytes]] = {NV_READ: [], NV_EXTEND: []}
    active = False

    def forge(command: bytes, ask: Ask) -> bytes:
        kind = code(command)
        if active and kind == NV_EXTEND and forgery == "a step left out":
            return answers[NV_EXTEND][0]
        answer = ask(command)
        if kind in answers:
            answers[kind].append(answer)
        if active and kind == NV_READ and forgery == "an older answer":
            return answers[NV_READ][-2]
        if active and kind == NV_READ and forgery == "a bit":
            return answer[:20] + bytes([answer[20] ^ 1]) + answer[21:]
        if active and kind == NV_READ and forgery == "nothing was ever written":
            return b"\x80\x01" + (10).to_bytes(4, "big") + RC_NV_UNINITIALIZED.to_bytes(4, "big")
        return answer

    with meddler(tpm, forge) as tcti:
        anchor = TpmAnchor(memory, database_key=KEY, tcti=tcti)
        with closing(anchor):
            NEW.settle(anchor)
            NEW.grown(1).settle(anchor)
            active = True
            with pytest.raises(StoreError, match=r"reading .* failed|extending .* failed|vouches for another state"):
                NEW.grown(2).settle(anchor)
            active = False
    settle(opened(), NEW.grown(2))


@pytest.mark.parametrize(
    ("forged", "match"),
    [
        (
            lambda _: b"\x80\x01" + (10).to_bytes(4, "big") + (0x101).to_bytes(4, "big"),
            "looking for NV index .* failed",
        ),
        (lambda answer: answer[:10] + bytes(len(answer) - 10), "looking for .* failed|is not the one that this store"),
    ],
    ids=["failure", "zeros"],
)
def test_an_answer_about_the_index_that_makes_no_sense_is_told(
    opened: Opened, tpm: Swtpm, memory: Path, forged: Ask, match: str
) -> None:
    settle(opened(), NEW)
    read_public = 0x169

    def forge(command: bytes, ask: Ask) -> bytes:
        answer = ask(command)
        return forged(answer) if code(command) == read_public else answer

    with (
        meddler(tpm, forge) as tcti,
        closing(TpmAnchor(memory, database_key=KEY, tcti=tcti)) as anchor,
        pytest.raises(StoreError, match=match),
    ):
        NEW.settle(anchor)


@contextmanager
def meddler(tpm: Swtpm, meddle: Callable[[bytes, Ask], bytes]) -> Iterator[str]:
    between = Meddler(tpm, meddle)
    try:
        yield between.tcti
    finally:
        between.close()


def test_the_warning_and_the_place_say_where(opened: Opened, tpm: Swtpm) -> None:
    anchor = opened()
    assert anchor.place == f"NV index 0x01804f53 of the TPM {tpm.tcti}"
    assert "trusted from its first use on" in anchor.warning


def test_closing_twice_does_nothing(opened: Opened) -> None:
    anchor = opened()
    NEW.settle(anchor)
    anchor.close()
    anchor.close()


@pytest.mark.parametrize("missing", ["the lock", "the memory"])
def test_a_directory_that_is_gone_is_told(opened: Opened, tmp_path: Path, missing: str) -> None:
    path = tmp_path / "absent" / "anchor.tpm"
    if missing == "the memory":
        path.parent.mkdir()
        (path.parent / "anchor.tpm").mkdir()
    with closing(opened(path)) as anchor, pytest.raises(StoreError, match=r"No such file|is not a regular file"):
        NEW.settle(anchor)
