"""The Merkle tree of RFC 6962.

Vectors: the eight leaves and the roots of their prefixes that the reference implementation of Certificate Transparency
was published with (`merkletree/merkle_tree_test.cc` and `python/ct/crypto/merkle_test.py`); implementations of RFC 6962
and RFC 9162 have repeated them since. The inclusion paths of the same set are not needed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from ostiary.audit import Frontier
from ostiary.audit.tree import MAX_LEAVES, leaf_hash, node_hash
from ostiary.errors import InputError

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def grown(leaves: Sequence[bytes]) -> Frontier:
    tree = Frontier()
    for leaf in leaves:
        tree = tree.append(leaf)
    return tree


def defined_root(leaves: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962 section 2.1, word for word, over all leaves."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    tree = grown(LEAVES[:size])
    assert (tree.size, tree.root.hex()) == (size, ROOTS[size])


def test_roots_follow_the_definition_for_every_size_up_to_200() -> None:
    leaves = [str(number).encode() for number in range(200)]
    tree = Frontier()
    for size, leaf in enumerate(leaves):
        assert tree.root == defined_root(leaves[:size])
        tree = tree.append(leaf)


def test_leaves_and_nodes_are_hashed_apart() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_appending_leaves_the_tree_as_it_was() -> None:
    tree = grown(LEAVES[:5])
    tree.append(b"dropped")
    assert tree == grown(LEAVES[:5])


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 100])
def test_a_decoded_tree_grows_as_the_encoded_one(size: int) -> None:
    tree = grown([b"leaf"] * size)
    decoded = Frontier.decode(tree.encode())
    assert decoded == tree
    assert decoded.append(b"next").root == tree.append(b"next").root


def test_the_encoding_is_size_then_nodes() -> None:
    tree = grown(LEAVES[:3])
    assert tree.encode().hex() == "0000000000000003" + ROOTS[2] + leaf_hash(LEAVES[2]).hex()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(9),
        bytes(7) + b"\x01",
        bytes(7) + b"\x01" + bytes(31),
        bytes(7) + b"\x01" + bytes(33),
        bytes(7) + b"\x03" + bytes(32),
        b"\x80" + bytes(7) + bytes(32),
        grown(LEAVES).encode() + b"\x00",
    ],
)
def test_other_bytes_are_not_a_tree(data: bytes) -> None:
    with pytest.raises(InputError, match=r"a Merkle frontier of \d+ bytes for \d+ leaves, expected \d+ bytes"):
        Frontier.decode(data)


def test_a_full_tree_takes_no_leaf() -> None:
    full = Frontier.decode(MAX_LEAVES.to_bytes(8, "big") + bytes(32 * 63))
    with pytest.raises(ValueError, match="is full"):
        full.append(b"one too many")
