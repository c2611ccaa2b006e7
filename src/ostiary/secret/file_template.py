"""Files without `content`: their text is read where the program runs, and is a template. Also what they may name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.kind import named_secret
from ostiary.secret.render import MAX_RENDERED_BYTES, render
from ostiary.secret.value import Released
from ostiary.session.placeholder import Template, parse_template


def parse_file_template(data: bytes, path: str) -> Template:
    """The template that a file holds. It need not be UTF-8: `render_file_template` keeps every other byte as it is.

    Raises ReleaseRefusedError: over MAX_RENDERED_BYTES.
    """
    if len(data) > MAX_RENDERED_BYTES:
        raise ReleaseRefusedError(
            f"file {path!r} has {len(data)} bytes, expected at most {MAX_RENDERED_BYTES}; split it"
        )
    return parse_template(data.decode("utf-8", "surrogateescape"))


def render_file_template(template: Template, path: str, values: Mapping[str, Released]) -> bytes:
    """The file with its placeholders replaced, as `render` does.

    Guarantees: text that is no placeholder keeps its bytes. Does not guarantee that the file may use these secrets.
    Raises ReleaseRefusedError naming the file and the placeholder.
    """
    try:
        return render(template, values, literal=lambda text: text.encode("utf-8", "surrogateescape"))
    except ReleaseRefusedError as error:
        raise ReleaseRefusedError(f"file {path!r}: {error.message}", *error.causes) from None


def require_provided(template: Template, path: str, secrets: Collection[str], provided: Collection[str]) -> None:
    """Check that every placeholder of the file names a secret that is provided.

    secrets: all names of the session. provided: `provide_secrets` of the image.
    Does not guarantee that a certificate's key is provided: only its value says where that is.
    Raises ReleaseRefusedError naming the file and the placeholder.
    """
    for placeholder in template.placeholders:
        if named_secret(placeholder.name, secrets) not in provided:
            raise ReleaseRefusedError(
                f"file {path!r}: placeholder {placeholder}: provide_secrets of the image does not have this secret; "
                "add it there"
            )


def require_callable(name: str, provided: Collection[str] | None) -> None:
    """Check that the program itself may ask for secret `name` while it runs. provided: as for files; None: it may not.

    Raises ReleaseRefusedError, the same whether there is such a secret or not.
    """
    if name not in (provided or ()):
        raise ReleaseRefusedError(
            f"provide_secrets of the image does not have secret {name!r}, so that the program may not ask; add it there"
        )
