"""Laws of notes, checkpoints and proofs: what is written is read again, and no bytes raise anything undocumented."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from ostiary.audit import Frontier
from ostiary.audit.checkpoint import Checkpoint, parse_checkpoint
from ostiary.audit.consistency import leaf_hashes, prove_consistency, verify_consistency
from ostiary.audit.note import SignatureLine, UnverifiedNote, parse_note, parse_verifier_key
from ostiary.audit.submission import Submission, parse_submission
from ostiary.errors import EvidenceRefusedError, InputError

hashes = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="+"), min_size=1, max_size=40)
lines = st.builds(
    SignatureLine, name=names, key_id=st.binary(min_size=4, max_size=4), data=st.binary(min_size=1, max_size=80)
)
checkpoints = st.builds(
    Checkpoint,
    origin=names,
    size=st.integers(0, 2**63 - 1),
    root=hashes,
    extensions=st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), max_size=3).map(tuple),
)
notes = st.builds(
    UnverifiedNote,
    text=checkpoints.map(lambda checkpoint: checkpoint.text),
    signatures=st.lists(lines, min_size=1, max_size=4).map(tuple),
)
submissions = st.builds(
    Submission, old_size=st.integers(0, 2**63 - 1), proof=st.lists(hashes, max_size=63).map(tuple), note=notes
)


@given(submissions)
def test_what_is_sent_to_a_witness_is_read_as_it_was_written(submission: Submission) -> None:
    assert parse_submission(submission.encode()) == submission
    assert parse_note(str(submission.note).encode()) == submission.note


@given(checkpoints)
def test_a_checkpoint_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    assert parse_checkpoint(checkpoint.text) == checkpoint


@given(st.binary(max_size=400), st.text(max_size=200))
def test_no_input_raises_anything_but_input_errors(data: bytes, text: str) -> None:
    for head in (b"", b"old 3\n", b"old 3\n\nlog\n1\n", "text\n\n— a ".encode()):
        with suppress(InputError):
            parse_submission(head + data)
        with suppress(InputError):
            parse_note(head + data)
    for reader in (parse_checkpoint, parse_verifier_key):
        with suppress(InputError):
            reader(text)
        with suppress(InputError):
            reader("log+" + text)


@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_every_beginning_of_a_log_is_consistent_with_it(leaves: list[bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(leaves)))
    old = new = Frontier()
    for number, leaf in enumerate(leaves):
        new = new.append(leaf)
        old = new if number + 1 == size else old
    proof = prove_consistency(old, leaf_hashes(leaves[size:]))
    verify_consistency(old_size=size, old_root=old.root, new_size=new.size, new_root=new.root, proof=proof)


@given(st.integers(-2, 70), st.integers(-2, 70), hashes, hashes, st.lists(hashes, max_size=8))
def test_invented_proofs_are_refused(m: int, n: int, old: bytes, new: bytes, proof: list[bytes]) -> None:
    """Random hashes never agree, whatever the sizes; and nothing but the documented refusal is raised."""
    if m == n and old == new and not proof and n > 0:
        return
    with suppress(EvidenceRefusedError):
        verify_consistency(old_size=m, old_root=old, new_size=n, new_root=new, proof=proof)
        raise AssertionError("accepted")
