"""Whether a witness may cosign: a table of what logs send, and of what the witness saw before."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulators.witnesses import KEY, LOG, ORIGIN, Log

from ostiary.audit import Frontier
from ostiary.audit.checkpoint import witness_key
from ostiary.audit.note import UnverifiedNote, log_key, sign_note
from ostiary.audit.submission import Submission
from ostiary.errors import (
    ConfigurationError,
    InconsistentLogError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OtherSizeError,
)
from ostiary.witness.judge import Seen, authenticate, judge, trusted_logs

OTHER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"other").digest())
LOGS = trusted_logs([LOG])


def log(*names: str) -> Log:
    return Log(leaves=[name.encode() for name in names])


def seen(known: Log) -> Seen:
    tree = known.tree()
    return Seen(size=tree.size, root=tree.root)


def judged(known: Log, new: Log, old: int | None = None) -> Seen:
    submission = new.submission(len(known.leaves) if old is None else old)
    return judge(submission, authenticate(submission, LOGS), seen(known))


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (log(), log()),
        (log(), log("a")),
        (log(), log("a", "b", "c")),
        (log("a"), log("a")),
        (log("a"), log("a", "b")),
        (log("a", "b", "c"), log("a", "b", "c", "d", "e", "f", "g")),
    ],
)
def test_a_log_that_goes_on_is_cosigned(known: Log, new: Log) -> None:
    assert judged(known, new) == seen(new)


@pytest.mark.parametrize(
    ("known", "new", "old"),
    [
        (log("a", "b"), log("a"), 1),
        (log("a", "b"), log("a"), 0),
        (log("a", "b"), log("a", "b"), 0),
        (log("a"), log("a", "b", "c"), 2),
        (log(), log("a", "b"), 1),
    ],
)
def test_another_size_than_the_last_is_told_to_the_log(known: Log, new: Log, old: int) -> None:
    with pytest.raises(OtherSizeError, match=f"old size {old}, but this witness cosigned size") as refused:
        judged(known, new, old)
    assert refused.value.size == len(known.leaves)


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (log("a"), log("b")),
        (log("a"), log("b", "c")),
        (log("a", "b"), log("b", "a")),
        (log("a", "b"), log("a", "c", "d")),
        (log("a", "b", "c", "d"), log("a", "b", "c", "x", "e")),
    ],
)
def test_another_history_is_never_cosigned(known: Log, new: Log) -> None:
    with pytest.raises(InconsistentLogError, match="does not go on from the one cosigned last"):
        judged(known, new)


def test_a_proof_where_none_is_needed_is_refused() -> None:
    for known, new in ((log(), log("a")), (log("a"), log("a"))):
        submission = dataclasses.replace(new.submission(len(known.leaves)), proof=(bytes(32),))
        with pytest.raises(InconsistentLogError, match="1 hashes between them"):
            judge(submission, authenticate(submission, LOGS), seen(known))


def test_an_empty_log_has_the_root_of_no_leaves() -> None:
    text = log().submission(0).note.text.replace("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "A" * 43 + "=")
    submission = Submission(
        old_size=0, proof=(), note=UnverifiedNote(text=text, signatures=(sign_note(text, ORIGIN, KEY),))
    )
    with pytest.raises(InconsistentLogError, match="the roots at 0 and 0 leaves"):
        judge(submission, authenticate(submission, LOGS), Seen())


def test_an_origin_that_nobody_named_is_unknown_whoever_signed() -> None:
    with pytest.raises(NotFoundError, match="not told about a log of this origin"):
        authenticate(Log(origin="cas.example/other").submission(0), LOGS)
    with pytest.raises(NotFoundError, match="not told about"):
        authenticate(log("a").submission(0), {})


def test_only_the_key_of_an_origin_speaks_for_it() -> None:
    note = log("a").submission(0).note
    for lines in (
        (sign_note(note.text, ORIGIN, OTHER),),
        (sign_note(note.text, "elsewhere", KEY),),
        (sign_note("other\n", ORIGIN, KEY),),
        (*note.signatures, sign_note("other\n", ORIGIN, KEY)),
    ):
        submission = Submission(old_size=0, proof=(), note=dataclasses.replace(note, signatures=lines))
        with pytest.raises(NotAuthorizedError, match="not signed as its origin's must be here"):
            authenticate(submission, LOGS)


def test_any_of_several_keys_of_an_origin_may_sign() -> None:
    assert authenticate(log("a").submission(0), trusted_logs([log_key(ORIGIN, OTHER), LOG])).size == 1


def test_an_old_size_over_the_size_is_malformed() -> None:
    with pytest.raises(InputError, match="old size 2, expected at most the checkpoint's, 1"):
        authenticate(log("a").submission(2), LOGS)


def test_a_log_has_one_name_at_a_time() -> None:
    """Else a database from before an accepted rollback could still be gone on with."""
    with pytest.raises(ConfigurationError, match=r"cas\.example/log/2 and cas\.example/log have the same key"):
        trusted_logs([LOG, log_key("cas.example/log/2", KEY)])
    assert trusted_logs([LOG, LOG]) == {ORIGIN: (LOG,)}


def test_the_key_of_a_witness_is_no_log() -> None:
    with pytest.raises(ConfigurationError, match="w: the verifier key of a witness"):
        trusted_logs([witness_key("w", KEY)])


def test_what_is_seen_first_is_the_empty_log() -> None:
    assert Seen() == Seen(size=0, root=Frontier().root)
