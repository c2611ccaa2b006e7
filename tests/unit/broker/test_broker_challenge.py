"""Nonces: each valid once, for one key, for a minute."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from ostiary.broker.challenge import CHALLENGE_LIFE, MAX_CHALLENGES, Challenges
from ostiary.errors import ChallengeRefusedError

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CLIENT, OTHER = b"c" * 32, b"o" * 32


@pytest.fixture
def challenges() -> Challenges:
    numbers = itertools.count()
    return Challenges(lambda size: next(numbers).to_bytes(size, "big"))


def test_a_fresh_nonce_is_accepted_once_and_refused_the_second_time(challenges: Challenges) -> None:
    nonce = challenges.issue(CLIENT, NOW)
    challenges.spend(nonce, CLIENT, NOW)
    with pytest.raises(ChallengeRefusedError, match="was used before"):
        challenges.spend(nonce, CLIENT, NOW)


def test_a_nonce_nobody_issued_is_refused(challenges: Challenges) -> None:
    with pytest.raises(ChallengeRefusedError, match="unknown"):
        challenges.spend(b"x" * 32, CLIENT, NOW)


def test_a_nonce_of_another_client_is_refused_and_spent(challenges: Challenges) -> None:
    nonce = challenges.issue(CLIENT, NOW)
    with pytest.raises(ChallengeRefusedError, match="given to another client key"):
        challenges.spend(nonce, OTHER, NOW)
    with pytest.raises(ChallengeRefusedError, match="was used before"):
        challenges.spend(nonce, CLIENT, NOW)


def test_a_nonce_is_valid_until_just_before_its_life_ends(challenges: Challenges) -> None:
    challenges.spend(challenges.issue(CLIENT, NOW), CLIENT, NOW + CHALLENGE_LIFE - timedelta(microseconds=1))


def test_an_expired_nonce_is_refused(challenges: Challenges) -> None:
    nonce = challenges.issue(CLIENT, NOW)
    with pytest.raises(ChallengeRefusedError, match="expired after 60 s"):
        challenges.spend(nonce, CLIENT, NOW + CHALLENGE_LIFE)


def test_expired_nonces_are_forgotten_when_new_ones_are_issued(challenges: Challenges) -> None:
    nonce = challenges.issue(CLIENT, NOW)
    challenges.issue(CLIENT, NOW + CHALLENGE_LIFE)
    with pytest.raises(ChallengeRefusedError, match="unknown"):
        challenges.spend(nonce, CLIENT, NOW)


def test_too_many_waiting_nonces_push_out_the_oldest(challenges: Challenges) -> None:
    oldest = challenges.issue(CLIENT, NOW)
    second = challenges.issue(CLIENT, NOW)
    for _ in range(MAX_CHALLENGES - 1):
        challenges.issue(OTHER, NOW)
    with pytest.raises(ChallengeRefusedError, match="unknown"):
        challenges.spend(oldest, CLIENT, NOW)
    challenges.spend(second, CLIENT, NOW)
