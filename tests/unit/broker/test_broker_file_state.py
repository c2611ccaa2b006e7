"""States of protected files: what is demanded at a start and what a report makes of them, as tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.broker.file_state import (
    MAX_LINES,
    MainState,
    Report,
    VolumeState,
    admitted_tags,
    advance_main,
    advance_volume,
    demanded_tag,
    main_declaration,
    volume_declaration,
)
from ostiary.errors import ReleaseRefusedError, TagConflictError
from ostiary.session.model import Service, Variable, Volume
from ostiary.session.placeholder import Placeholder

RP, EPHEMERAL, NONE = "rollback_protected", "ephemeral", "no_rollback_protection"
T0, T1, T2, T3, T9 = (bytes([number]) * 16 for number in (0, 1, 2, 3, 9))


def volume(tag: bytes | None, replaced: bytes | None = None) -> VolumeState:
    return VolumeState(
        id=bytes(16), declaration=bytes(32), files="encrypted", key=b"k" * 32, tag=tag, replaced=replaced
    )


@pytest.mark.parametrize(("tag", "policy", "demanded"), [
    (T1, RP, T1), (T1, EPHEMERAL, T1), (T1, NONE, None),
    (None, RP, None), (None, NONE, None),
])  # fmt: skip
def test_what_a_start_must_find(tag: bytes | None, policy: str, demanded: bytes | None) -> None:
    """F169, F170, F171."""
    assert demanded_tag(volume(tag), policy) == demanded


def test_f170_an_ephemeral_start_needs_a_state() -> None:
    """F170."""
    with pytest.raises(ReleaseRefusedError, match="no state yet, and an ephemeral use cannot give it one"):
        demanded_tag(volume(None), EPHEMERAL)


@pytest.mark.parametrize(("state", "policy", "old", "new", "after"), [
    (volume(None), RP, None, T1, volume(T1)),
    (volume(T1), RP, T1, T2, volume(T2, T1)),
    (volume(T2, T1), RP, T2, T1, volume(T1, T2)),
    (volume(None), NONE, None, T1, volume(T1)),
    (volume(T1), NONE, T9, T2, volume(T2, T9)),
    (volume(T1), NONE, None, T2, volume(T2)),
    (volume(None), NONE, T9, T2, volume(T2, T9)),
])  # fmt: skip
def test_what_is_recorded(state: VolumeState, policy: str, old: bytes | None, new: bytes, after: VolumeState) -> None:
    """F161, F169, F171: a change of the recorded state, or any where no protection is asked for."""
    assert advance_volume(state, policy, old=old, new=new) == after


@pytest.mark.parametrize(("state", "policy", "old", "new"), [
    (volume(T1), EPHEMERAL, T1, T2),
    (volume(T1), EPHEMERAL, T9, T2),
    (volume(None), EPHEMERAL, None, T2),
    (volume(T2, T1), RP, T1, T2),
    (volume(T2, T1), RP, T2, T2),
    (volume(T1), RP, None, T1),
    (volume(T2, T1), NONE, T1, T2),
])  # fmt: skip
def test_what_changes_nothing(state: VolumeState, policy: str, old: bytes | None, new: bytes) -> None:
    """F170: an ephemeral use; and a report that was recorded already."""
    assert advance_volume(state, policy, old=old, new=new) is state


@pytest.mark.parametrize(("state", "old", "new", "says"), [
    (volume(T1), None, T2, "without a state: its newest state has the tag 0101"),
    (volume(T2, T1), None, T1, "without a state"),
    (volume(None), T1, T2, "with the tag 0101010101010101"),
    (volume(T2, T1), T1, T3, "with the tag 0101"),
    (volume(T2, T1), T3, T2, "with the tag 0303"),
    (volume(T2, T1), T9, T9, "with the tag 0909"),
])  # fmt: skip
def test_what_does_not_follow_is_refused_with_the_recorded_tag(
    state: VolumeState, old: bytes | None, new: bytes, says: str
) -> None:
    """F161, F169."""
    with pytest.raises(TagConflictError) as caught:
        advance_volume(state, RP, old=old, new=new)
    assert says in caught.value.message
    assert caught.value.current == state.tag


@given(st.lists(st.tuples(st.sampled_from([None, T1, T2, T3]), st.sampled_from([T1, T2, T3]))))
def test_f169_the_recorded_tags_form_one_chain(reports: list[tuple[bytes | None, bytes]]) -> None:
    """F169: whatever is reported in whatever order, each recorded state was reached from the one recorded before."""
    state = volume(None)
    for old, new in reports:
        before = state
        try:
            state = advance_volume(before, RP, old=old, new=new)
        except TagConflictError:
            assert old != before.tag
            continue
        assert state is before or (state.replaced, state.tag) == (before.tag, new)
        assert state.tag == new


REINITIALISABLE = Service(name="s", fspf_path="/f", fspf_key=bytes(32), fspf_tag=T0)
UNPROTECTED = replace(REINITIALISABLE, fspf_tag=None, fspf_update_policy=NONE)


def lines(*heads: bytes) -> MainState:
    return MainState(id=bytes(16), declaration=bytes(32), heads=heads)


def test_f172_a_start_may_be_in_the_initial_state_or_at_the_head_of_a_line() -> None:
    """F172."""
    assert admitted_tags(lines(), REINITIALISABLE) == (T0,)
    assert admitted_tags(lines(T1, T2, T1), REINITIALISABLE) == (T0, T1, T2)
    assert admitted_tags(lines(T1), UNPROTECTED) is None


@pytest.mark.parametrize(("heads", "last", "old", "new", "after"), [
    ((), None, T0, T1, (T1,)),
    ((T1,), None, T0, T2, (T1, T2)),
    ((T1,), None, T0, T1, (T1, T1)),
    ((T1, T2), None, T1, T3, (T2, T3)),
    ((T1, T1), None, T1, T2, (T1, T2)),
    ((T1, T2), (T0, T1), T1, T3, (T2, T3)),
    ((T1,), (T0, T1), T1, T0, ()),
    ((T2,), (T1, T0), T0, T3, (T2, T3)),
])  # fmt: skip
def test_f172_a_line_is_opened_or_continued(
    heads: tuple[bytes, ...], last: tuple[bytes, bytes] | None, old: bytes, new: bytes, after: tuple[bytes, ...]
) -> None:
    """F172."""
    reported = None if last is None else Report(old=last[0], new=last[1])
    assert advance_main(lines(*heads), REINITIALISABLE, reported, Report(old=old, new=new)) == lines(*after)


@pytest.mark.parametrize(("heads", "last", "old", "new"), [
    ((T1,), (T0, T1), T0, T1), ((), None, T0, T0), ((T1,), None, T1, T1),
])  # fmt: skip
def test_f172_a_report_again_changes_nothing(
    heads: tuple[bytes, ...], last: tuple[bytes, bytes] | None, old: bytes, new: bytes
) -> None:
    """F172: nor does one that names no change."""
    state, reported = lines(*heads), None if last is None else Report(old=last[0], new=last[1])
    assert advance_main(state, REINITIALISABLE, reported, Report(old=old, new=new)) is state


@pytest.mark.parametrize(("heads", "last", "old", "current", "says"), [
    ((T2,), None, T1, None, "with the tag 0101"),
    ((), None, T9, None, "no such state is the newest one"),
    ((T1,), (T0, T1), T0, T1, "this start's line"),
    ((T1, T2), (T0, T1), T2, T1, "this start's line"),
    ((T2,), (T0, T1), T1, None, "no such state is the newest one"),
])  # fmt: skip
def test_f172_anything_between_is_refused(
    heads: tuple[bytes, ...], last: tuple[bytes, bytes] | None, old: bytes, current: bytes | None, says: str
) -> None:
    """F172: an intermediate state, an unknown one, another's line, and a line that another start continued."""
    reported = None if last is None else Report(old=last[0], new=last[1])
    with pytest.raises(TagConflictError) as caught:
        advance_main(lines(*heads), REINITIALISABLE, reported, Report(old=old, new=T3))
    assert says in caught.value.message
    assert caught.value.current == current


def test_f172_of_too_many_lines_the_least_recently_changed_are_forgotten() -> None:
    """F172."""
    heads = tuple(number.to_bytes(16, "big") for number in range(1, MAX_LINES + 1))
    state = advance_main(lines(*heads), REINITIALISABLE, None, Report(old=heads[0], new=b"n" * 16))
    assert len(state.heads) == MAX_LINES
    state = advance_main(state, REINITIALISABLE, None, Report(old=T0, new=b"m" * 16))
    assert state.heads == (*heads[2:], b"n" * 16, b"m" * 16)
    with pytest.raises(TagConflictError):
        advance_main(state, REINITIALISABLE, Report(old=T0, new=heads[1]), Report(old=heads[1], new=T9))


@pytest.mark.parametrize(("heads", "old", "new", "after"), [
    ((), T9, T1, (T1,)), ((T1,), T9, T2, (T2,)), ((T1, T2), T1, T3, (T3,)), ((T1,), T1, T1, (T1,)),
])  # fmt: skip
def test_f171_without_protection_the_last_report_counts(
    heads: tuple[bytes, ...], old: bytes, new: bytes, after: tuple[bytes, ...]
) -> None:
    """F171."""
    assert advance_main(lines(*heads), UNPROTECTED, None, Report(old=old, new=new)).heads == after
    initial = advance_main(lines(T1), replace(UNPROTECTED, fspf_tag=T0), None, Report(old=T1, new=T0))
    assert initial.heads == ()


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([T0, T1, T2, T3]), st.sampled_from([T0, T1, T2, T3]))))
def test_f172_there_are_as_many_heads_as_lines_away_from_the_initial_state(
    reports: list[tuple[int, bytes, bytes]],
) -> None:
    """F172: four instances report in any order; each has its own line, and no line has two heads."""
    state, last = lines(), dict[int, Report]()
    for instance, old, new in reports:
        report = Report(old=old, new=new)
        before = Counter(state.heads)
        try:
            state = advance_main(state, REINITIALISABLE, last.get(instance), report)
        except TagConflictError:
            assert Counter(state.heads) == before
            continue
        gone, come = before - Counter(state.heads), Counter(state.heads) - before
        assert gone.total() <= 1
        assert come.total() <= 1
        assert not gone or gone == Counter([old])
        last[instance] = report
    assert T0 not in state.heads


@pytest.mark.parametrize(("key", "tag"), [
    (b"k" * 32, T1), (b"l" * 32, T1), (b"k" * 32, T2), (None, None),
    (Variable(placeholder=Placeholder(name="k")), T1), (Variable(placeholder=Placeholder(name="l")), T1),
])  # fmt: skip
def test_a_declaration_is_the_text_of_key_and_tag(key: bytes | Variable | None, tag: bytes | None) -> None:
    declared = volume_declaration(Volume(name="v", fspf_key=key, fspf_tag=tag))
    assert declared == main_declaration(Service(name="s", fspf_path="/x", fspf_key=key, fspf_tag=tag))
    assert declared == volume_declaration(Volume(name="w", fspf_key=key, fspf_tag=tag, files="authenticated-only"))
    others = [(b"x" * 32, tag), (key, T9), (Variable(placeholder=Placeholder(name="x")), tag)]
    for other_key, other_tag in others:
        assert declared != volume_declaration(Volume(name="v", fspf_key=other_key, fspf_tag=other_tag))


def test_a_state_shows_no_key() -> None:
    assert "kkkk" not in repr(volume(T1))
