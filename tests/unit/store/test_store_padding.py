from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.store.padding import MIN_BUCKET_BYTES, bucket, pad, unpad


@pytest.mark.parametrize(
    ("length", "size"),
    [
        (0, 256),
        (1, 256),
        (256, 256),
        (257, 272),
        (272, 272),
        (273, 288),
        (1000, 1024),
        (1025, 1088),
        (100_000, 100_352),
    ],
)
def test_buckets(length: int, size: int) -> None:
    assert bucket(length) == size


@given(st.integers(min_value=0, max_value=2**40))
def test_a_bucket_holds_its_length_costs_at_most_an_eighth_and_is_its_own_bucket(length: int) -> None:
    size = bucket(length)
    assert length <= size <= max(MIN_BUCKET_BYTES, length * 9 // 8)
    assert bucket(size) == size


@given(st.binary(max_size=2000))
def test_padding_comes_off_again(value: bytes) -> None:
    padded = pad(value)
    assert unpad(padded) == value
    assert len(padded) == bucket(len(value) + 4)


def test_values_of_near_lengths_look_alike() -> None:
    assert len({len(pad(bytes(length))) for length in range(10_000, 11_000)}) <= 9


@pytest.mark.parametrize(
    "padded",
    [
        b"",
        bytes(3),
        bytes(255),
        bytes(257),
        bytes(512),
        b"\x00\x00\x00\x00\x01" + bytes(251),
        b"\x00\x00\x01\x00" + bytes(252),
        b"\xff\xff\xff\xff" + bytes(252),
    ],
)
def test_other_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(ValueError, match="padding"):
        unpad(padded)
