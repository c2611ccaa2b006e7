"""The anchor with witnesses: quorums, every answer a witness can give, and what an attacker may try."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulators.outside import Outside
from tests.simulators.witnesses import KEY, LOG, ORIGIN, Log

from ostiary.audit.checkpoint import cosign, witness_key
from ostiary.audit.note import VerifierKey, log_key
from ostiary.audit.submission import SIZE_TYPE, Submission, parse_submission
from ostiary.errors import ConfigurationError, OstiaryError, OtherSizeError, RollbackError, StoreError, TamperedError
from ostiary.freshness import WitnessAnchor, WitnessServer, derive_log_key
from ostiary.freshness.witness import MAX_REQUESTS, check_quorum
from ostiary.https import trusting
from ostiary.store import Head
from ostiary.witness.judge import Seen, authenticate, judge, trusted_logs

TIME = 1760000000
PATIENT_SECONDS = 60.0
IMPATIENT_SECONDS = 0.2

Behaviour = Callable[["Member", Submission], tuple[int, str]]


class Member:
    """A witness in this process, behind TLS; it can be told to misbehave."""

    def __init__(self, directory: Path, name: str) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.name = name
        self.seen = Seen()
        self.behaviour: Behaviour | None = None
        self.silent = threading.Event()
        self.silent.set()
        self.asked: list[Submission] = []
        self.closed = False
        directory.mkdir()
        self.outside = Outside(directory, self._answer)

    @property
    def server(self) -> WitnessServer:
        return WitnessServer(
            url=self.outside.url + "/", key=witness_key(self.name, self.key), trust=trusting(self.outside.certificate)
        )

    def cosign(self, submission: Submission) -> str:
        return str(cosign(submission.note.text, self.name, self.key, time=TIME))

    def honest(self, submission: Submission) -> tuple[int, str]:
        checkpoint = authenticate(submission, trusted_logs([LOG]))
        try:
            self.seen = judge(submission, checkpoint, self.seen)
        except OtherSizeError as error:
            return 409, f"{error.size}\n"
        except OstiaryError as error:
            return 422, f"{error}\n"
        return 200, self.cosign(submission)

    def _answer(self, request: bytes, stream: ssl.SSLSocket) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /add-checkpoint HTTP/1.1\r\n")
        submission = parse_submission(body)
        self.asked.append(submission)
        status, text = self.honest(submission) if self.behaviour is None else self.behaviour(self, submission)
        self.silent.wait(PATIENT_SECONDS)
        kind = SIZE_TYPE if status == 409 else "text/plain"
        body = text.encode()
        stream.sendall(
            f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )

    def close(self) -> None:
        self.silent.set()
        if not self.closed:
            self.closed = True
            self.outside.close()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[tuple[Member, ...]]:
    made = tuple(Member(tmp_path / name, name) for name in ("w1", "w2", "w3"))
    yield made
    for member in made:
        member.close()


@pytest.fixture
def anchored(members: tuple[Member, ...]) -> Iterator[Callable[..., WitnessAnchor]]:
    made: list[WitnessAnchor] = []

    def make(quorum: int = 2, seconds: float = PATIENT_SECONDS) -> WitnessAnchor:
        servers = [member.server for member in members]
        made.append(WitnessAnchor(origin=ORIGIN, key=KEY, witnesses=servers, quorum=quorum, seconds=seconds))
        return made[-1]

    yield make
    for member in members:
        member.silent.set()
    for anchor in made:
        anchor.close()


def log(*leaves: str) -> Log:
    return Log(leaves=[leaf.encode() for leaf in leaves])


def head(known: Log, seq: int = 1) -> Head:
    return Head(seq=seq, digest=bytes(32), log_size=len(known.leaves), log_root=known.tree().root)


def settle(anchor: WitnessAnchor, known: Log) -> None:
    anchor.settle(head(known), known.read)


def status(code: int, text: str = "") -> Behaviour:
    return lambda _member, _submission: (code, text)


def test_a_quorum_cosigns_a_growing_log(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    anchor, known = anchored(3), log()
    for number in range(20):
        settle(anchor, known)
        assert [member.seen for member in members] == [Seen(size=number, root=known.tree().root)] * 3
        known.leaves.append(b"%d" % number)
    # One question each, once the size is known: the proofs fit.
    assert [len(member.asked) for member in members] == [20] * 3


def test_after_a_start_it_finds_out_what_each_witness_saw(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    known = log(*"abcdefg")
    for member, size in zip(members, (7, 4, 0), strict=True):
        tree = known.tree(size)
        member.seen = Seen(size=size, root=tree.root)
    settle(anchored(3), known)
    assert {member.seen.size for member in members} == {7}
    assert [len(member.asked) for member in members] == [1, 2, 2]


def test_an_epoch_without_leaf_is_remembered_already(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    anchor = anchored(3)
    settle(anchor, log("a"))
    asked = [len(member.asked) for member in members]
    anchor.settle(head(log("a"), seq=2), log("a").read)
    assert [len(member.asked) for member in members] == asked


def test_leaves_are_read_once_while_the_process_lives(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    anchor, known = anchored(3), log(*"abc")
    settle(anchor, known)
    starts: set[int] = set()

    def counting(start: int) -> Iterator[bytes]:
        starts.add(start)
        return known.read(start)

    known.leaves.append(b"d")
    anchor.settle(head(known), counting)
    assert starts == {3}


@pytest.mark.parametrize("failing", [
    status(500), status(403, "no"), status(404, "no"), status(200, ""), status(200, "garbage"), status(409, "x"),
    status(302), status(200, "— w2 AAAAAAA=\n"), status(409, "0\n"),
    lambda member, submission: (200, member.cosign(submission).replace(f" {member.name} ", " w9 ")),
    lambda member, submission: (200, str(cosign("other\n", member.name, member.key, time=TIME))),
    lambda member, submission: (200, str(cosign(submission.note.text, member.name, KEY, time=TIME))),
])  # fmt: skip
def test_a_witness_that_fails_is_done_without(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor], failing: Behaviour
) -> None:
    """One of three may be down, broken or hostile; two may not, and then nothing is settled."""
    anchor = anchored(2)
    members[0].behaviour = failing
    settle(anchor, log("a"))
    members[1].behaviour = failing
    with pytest.raises(StoreError, match=r"1 cosigned 2 leaves .*, 2 are needed") as refused:
        settle(anchor, log("a", "b"))
    assert not isinstance(refused.value, RollbackError)
    members[1].behaviour = None
    settle(anchor, log("a", "b"))


def test_who_does_not_know_the_log_is_told_its_key(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    for member in members:
        member.behaviour = status(404)
    with pytest.raises(StoreError, match="which must know the log as") as refused:
        settle(anchored(2), log("a"))
    assert str(LOG) in str(refused.value)
    assert "w1 gives no answer that counts: answers 404, it was not told about this log" in str(refused.value)


def test_a_silent_witness_holds_nobody_up(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    anchor, known = anchored(2), log()
    members[0].silent.clear()
    for number in range(5):
        known.leaves.append(b"%d" % number)
        settle(anchor, known)
    assert members[1].seen.size == members[2].seen.size == 5
    members[0].silent.set()


def test_a_silent_majority_ends_in_time(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    anchor = anchored(2, seconds=IMPATIENT_SECONDS)
    members[0].silent.clear()
    members[1].silent.clear()
    with pytest.raises(StoreError, match=r"w1 gives no answer that counts: 127\.0\.0\.1 does not answer: timed out"):
        settle(anchor, log("a"))


def test_nobody_there_is_no_quorum(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    anchor = anchored(2)
    for member in members:
        member.close()
    with pytest.raises(StoreError, match="0 cosigned 1 leaves"):
        settle(anchor, log("a"))


def test_a_log_that_was_turned_back_is_refused(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    settle(anchored(3), log("a", "b", "c"))
    late = anchored(2)
    with pytest.raises(
        RollbackError, match=r"expected a log that goes on from what they remember, found 2 leaves"
    ) as e:
        settle(late, log("a", "b"))
    assert "w2 remembers a longer log: of 3 leaves" in str(e.value)
    assert "ostiary store accept-rollback" in str(e.value)
    assert late.remembered()[0] == "w1 remembers a longer log of 3 leaves"


@pytest.mark.parametrize("found", [log("a", "x"), log("a", "x", "c"), log("x", "b", "c", "d")])
def test_another_history_is_refused(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor], found: Log
) -> None:
    settle(anchored(3), log("a", "b"))
    with pytest.raises(RollbackError, match="remembers another history: of 2 leaves"):
        settle(anchored(2), found)


def test_witnesses_that_answer_409_for_another_root_are_understood(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    """An earlier text of the standard has 409 where the newer one has 422."""
    for member in members:
        member.behaviour = status(409, "1\n")
    with pytest.raises(RollbackError, match="w1 remembers another history: of 1 leaves"):
        settle(anchored(2), log("a"))


def test_one_witness_that_lies_about_a_longer_log_stops_nothing(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    members[0].behaviour = status(409, "1000\n")
    settle(anchored(2), log("a"))


def test_one_that_knows_more_and_one_that_is_down_are_no_proof_of_a_rollback(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    """It may lie; but without a quorum nothing goes on either."""
    members[0].behaviour = status(409, "1000\n")
    members[1].behaviour = status(500)
    with pytest.raises(StoreError, match="1 cosigned 1 leaves") as refused:
        settle(anchored(2), log("a"))
    assert not isinstance(refused.value, RollbackError)
    assert "w1 remembers a longer log: of 1000 leaves" in str(refused.value)


def test_of_two_forks_one_finds_a_quorum(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    """Two processes on two copies, each with the same right: majorities meet in a witness."""
    settle(anchored(3), log("a"))
    outcomes: list[str] = []
    gate = threading.Barrier(2)

    def fork(name: str, anchor: WitnessAnchor) -> None:
        gate.wait()
        try:
            settle(anchor, log("a", name))
        except StoreError:
            outcomes.append("refused")
        else:
            outcomes.append("settled")

    threads = [threading.Thread(target=fork, args=(name, anchored(2))) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("settled") <= 1
    assert outcomes.count("refused") >= 1


def test_an_endless_conflict_ends(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    sizes = iter(range(1000))
    for member in members:
        member.behaviour = lambda _member, _submission: (409, f"{next(sizes) % 3}\n")
    with pytest.raises(StoreError, match="names another size each time"):
        settle(anchored(2), log(*"abcdef"))
    assert all(len(member.asked) <= MAX_REQUESTS for member in members)


def test_a_log_that_is_not_the_heads_is_our_own_trouble(
    members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]
) -> None:
    with pytest.raises(TamperedError, match="has 1 leaves and not the root of head 1"):
        anchored(2).settle(head(log("a")), log("b").read)
    assert not any(member.asked for member in members)


def keys(*names: str) -> list[VerifierKey]:
    return [
        witness_key(name, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))
        for name in names
    ]


@pytest.mark.parametrize(
    ("quorum", "number", "ok"),
    [
        (1, 1, True), (2, 2, True), (2, 3, True), (3, 3, True), (3, 4, True), (3, 5, True),
        (0, 0, False), (1, 0, False), (0, 1, False), (1, 2, False), (1, 3, False), (2, 4, False), (4, 3, False),
        (-1, 3, False), (0, 3, False),
    ],
)  # fmt: skip
def test_two_quorums_must_have_a_witness_in_common(quorum: int, number: int, ok: bool) -> None:
    witnesses = keys(*(f"w{at}" for at in range(number)))
    if ok:
        return check_quorum(quorum, witnesses)
    with pytest.raises(ConfigurationError, match=r"two quorums must have a witness in common|0 witnesses, expected 1"):
        check_quorum(quorum, witnesses)
    return None


def test_a_witness_counts_once() -> None:
    with pytest.raises(ConfigurationError, match="the same key or name"):
        check_quorum(2, keys("a", "a", "b"))
    with pytest.raises(ConfigurationError, match="the same key or name"):
        check_quorum(
            2, [*keys("a", "b"), VerifierKey(name="c", kind=keys("a")[0].kind, public_key=keys("a")[0].public_key)]
        )
    with pytest.raises(ConfigurationError, match=r"cas\.example/log: the verifier key of a log"):
        check_quorum(1, [LOG])
    with pytest.raises(ConfigurationError, match="33 witnesses, expected 1 to 32"):
        check_quorum(33, keys(*map(str, range(33))))


def test_an_origin_must_name_a_log(members: tuple[Member, ...]) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a log"):
        WitnessAnchor(origin="a b", key=KEY, witnesses=[members[0].server], quorum=1)


def test_what_it_says_of_itself(members: tuple[Member, ...], anchored: Callable[..., WitnessAnchor]) -> None:
    anchor = anchored(2)
    assert anchor.place == "2 of 3 witnesses of the log cas.example/log"
    assert (anchor.warning, anchor.verifier_key, anchor.remembered()) == ("", LOG, ())
    alone = WitnessAnchor(origin=ORIGIN, key=KEY, witnesses=[members[0].server], quorum=1)
    assert "watched by one witness alone, w1" in alone.warning
    alone.close()


def test_the_logs_key_comes_from_the_database_key() -> None:
    """A fixed vector: another derivation would lose every witness."""
    assert log_key("log", derive_log_key(bytes(32))).public_key.hex() == (
        "63491b07596cdc5fc5350abee7f27d4b43f5377c2a25e8164965cb6c6118ac13"
    )
    assert derive_log_key(bytes(32)).private_bytes_raw() != derive_log_key(b"1" * 32).private_bytes_raw()
