"""Consistency proofs, held against the definition of RFC 6962 section 2.1.2 word for word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.unit.audit.test_audit_tree import LEAVES, defined_root, grown

from ostiary.audit import Frontier
from ostiary.audit.consistency import MAX_PROOF_HASHES, leaf_hashes, prove_consistency, verify_consistency
from ostiary.errors import EvidenceRefusedError

MANY = [str(number).encode() for number in range(65)]


def defined_proof(m: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[n], b) of the RFC, over all leaves."""
    n = len(leaves)
    if m == n:
        return [] if whole else [defined_root(leaves)]
    k = 1 << ((n - 1).bit_length() - 1)
    if m <= k:
        return [*defined_proof(m, leaves[:k], whole=whole), defined_root(leaves[k:])]
    return [*defined_proof(m - k, leaves[k:], whole=False), defined_root(leaves[:k])]


def prove(m: int, n: int) -> tuple[bytes, ...]:
    return prove_consistency(grown(MANY[:m]), leaf_hashes(MANY[m:n]))


def verify(m: int, n: int, proof: Sequence[bytes]) -> None:
    verify_consistency(
        old_size=m, old_root=grown(MANY[:m]).root, new_size=n, new_root=grown(MANY[:n]).root, proof=proof
    )


def test_every_proof_up_to_65_leaves_is_the_defined_one_and_verifies() -> None:
    for n in range(1, 66):
        for m in range(1, n + 1):
            proof = prove(m, n)
            assert list(proof) == defined_proof(m, MANY[:n]), (m, n)
            verify(m, n, proof)


@pytest.mark.parametrize(
    ("m", "n", "proof"),
    [
        (1, 1, []),
        (1, 8, [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]),
        (6, 8, [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]),
        (2, 5, [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]),
    ],
)  # fmt: skip
def test_proofs_are_the_published_ones(m: int, n: int, proof: list[str]) -> None:
    """The set that the roots in test_audit_tree.py belong to."""
    assert [node.hex() for node in prove_consistency(grown(LEAVES[:m]), leaf_hashes(LEAVES[m:n]))] == proof


def test_from_nothing_there_is_nothing_to_show() -> None:
    assert prove_consistency(Frontier(), leaf_hashes(MANY)) == ()
    verify(0, 65, ())
    verify(0, 0, ())


def test_a_changed_dropped_or_added_hash_is_refused() -> None:
    for m, n in ((1, 2), (3, 7), (4, 8), (6, 8), (7, 64), (32, 65), (63, 65)):
        proof = list(prove(m, n))
        for at in range(len(proof)):
            for wrong in (
                [*proof[:at], bytes(32), *proof[at + 1 :]],
                [*proof[:at], *proof[at + 1 :]],
                [*proof[:at], proof[at], *proof[at:]],
            ):
                with pytest.raises(EvidenceRefusedError, match=f"does not lead from the root at {m} leaves to that"):
                    verify(m, n, wrong)


def test_another_history_has_no_proof() -> None:
    """No proof that the old log's owner could send makes a changed leaf part of the new log."""
    forged = [*MANY[:2], b"forged", *MANY[3:]]
    for m in range(3, 16):
        for n in range(m + 1, 17):
            with pytest.raises(EvidenceRefusedError):
                verify_consistency(
                    old_size=m,
                    old_root=grown(forged[:m]).root,
                    new_size=n,
                    new_root=grown(MANY[:n]).root,
                    proof=prove(m, n),
                )


@pytest.mark.parametrize(
    ("m", "old", "n", "new", "proof"),
    [
        (2, grown(MANY[:2]).root, 1, grown(MANY[:1]).root, []),
        (-1, grown(MANY[:2]).root, 1, grown(MANY[:1]).root, []),
        (2, grown(MANY[:2]).root, 2, grown(MANY[1:3]).root, []),
        (2, grown(MANY[:2]).root, 2, grown(MANY[:2]).root, [bytes(32)]),
        (0, grown(MANY[:1]).root, 2, grown(MANY[:2]).root, []),
        (0, Frontier().root, 2, grown(MANY[:2]).root, [bytes(32)]),
        (0, Frontier().root, 0, grown(MANY[:2]).root, []),
        (3, grown(MANY[:3]).root, 5, grown(MANY[:5]).root, []),
        (2, grown(MANY[:2]).root, 4, grown(MANY[:4]).root, []),
    ],
)
def test_sizes_that_need_no_proof_are_held_to_their_roots(
    m: int, old: bytes, n: int, new: bytes, proof: list[bytes]
) -> None:
    with pytest.raises(EvidenceRefusedError, match="leaves"):
        verify_consistency(old_size=m, old_root=old, new_size=n, new_root=new, proof=proof)


def test_a_proof_between_any_sizes_fits_the_bound() -> None:
    """The largest number of hashes: down the whole height, one for each level and one for the border's subtree."""
    old = Frontier.decode((2**15 - 1).to_bytes(8, "big") + bytes(32 * 15))
    assert len(prove_consistency(old, [bytes(32)] * (2**15 + 1))) == 17
    assert MAX_PROOF_HASHES == 63
