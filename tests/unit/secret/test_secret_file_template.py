"""Files that are templates, and what an image lets them and its program name."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.file_template import parse_file_template, render_file_template, require_callable, require_provided
from ostiary.secret.render import MAX_RENDERED_BYTES
from ostiary.secret.value import AsciiValue, BinaryValue, Released

VALUES: dict[str, Released] = {"word": AsciiValue(text="hunter2"), "data": BinaryValue(data=b"\xff\x00")}


def rendered(data: bytes, provided: Collection[str] | None = None) -> bytes:
    template = parse_file_template(data, "/etc/a.conf")
    if provided is not None:
        require_provided(template, "/etc/a.conf", VALUES, provided)
    return render_file_template(template, "/etc/a.conf", VALUES)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"a=$$SCONE::word$$\n", b"a=hunter2\n"),
        (b"\xff\xfe\x00$$SCONE::data:hex$$\x80", b"\xff\xfe\x00ff00\x80"),
        (b"$$SCONE::data$$", b"\xff\x00"),
        ("\u00e9$$SCONE:word$$".encode(), "\u00e9$$SCONE:word$$".encode()),
        (bytes(range(256)), bytes(range(256))),
    ],
)
def test_placeholders_are_replaced_and_all_other_bytes_stay(data: bytes, expected: bytes) -> None:
    """Feature F140: a file as a template."""
    assert rendered(data) == expected


@pytest.mark.parametrize("provided", [None, ("word",), ("word", "data")])
def test_a_file_may_use_what_is_provided(provided: Collection[str] | None) -> None:
    """Feature F144."""
    assert rendered(b"$$SCONE::word$$", provided) == b"hunter2"


@pytest.mark.parametrize(
    ("data", "provided"),
    [
        (b"$$SCONE::word$$", ("data",)),
        (b"$$SCONE::word$$", ()),
        (b"$$SCONE::data.hex$$", ("word",)),
        (b"$$SCONE::lost$$", ("word",)),
    ],
)
def test_a_file_that_names_another_secret_is_refused(data: bytes, provided: Collection[str]) -> None:
    """Feature F144."""
    with pytest.raises(ReleaseRefusedError) as caught:
        rendered(data, provided)
    assert caught.value.message == (
        f"file '/etc/a.conf': placeholder {data.decode()}: provide_secrets of the image does not have this secret; "
        "add it there"
    )


def test_the_dot_form_of_a_provided_secret_is_provided() -> None:
    assert rendered(b"$$SCONE::data.hex$$", ("data",)) == b"ff00"


def test_an_unknown_secret_is_refused_by_file_and_placeholder() -> None:
    with pytest.raises(ReleaseRefusedError, match=r"^file '/etc/a.conf': placeholder \$\$SCONE::lost\$\$: there is no"):
        rendered(b"$$SCONE::lost$$")


def test_a_file_over_the_bound_is_refused() -> None:
    assert rendered(b"x" * MAX_RENDERED_BYTES)
    with pytest.raises(ReleaseRefusedError, match=r"^file '/etc/a.conf' has 1048577 bytes, expected at most 1048576"):
        rendered(b"x" * (MAX_RENDERED_BYTES + 1))


def test_the_program_may_ask_for_what_is_provided() -> None:
    """Feature F144, F145."""
    require_callable("word", ("word",))


@pytest.mark.parametrize("provided", [None, (), ("other",)])
def test_the_program_may_not_ask_for_anything_else(provided: Collection[str] | None) -> None:
    """Feature F145: not without provide_secrets."""
    with pytest.raises(
        ReleaseRefusedError, match=r"^provide_secrets of the image does not have secret 'word', so that"
    ):
        require_callable("word", provided)
