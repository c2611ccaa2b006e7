"""The session parser knows kinds, formats and encodings by name, and here is what carries them out: both agree."""

from __future__ import annotations

from ostiary.secret.format import FORMS
from ostiary.secret.kind import KINDS
from ostiary.secret.render import ENCODINGS, render
from ostiary.secret.value import AadTokenValue, AsciiValue, JwtValue
from ostiary.session import language
from ostiary.session.placeholder import parse_template

FORMS_BY_KIND = {
    **{kind.name: FORMS[kind.value_type] for kind in KINDS.values()},
    "aad-token": FORMS[AadTokenValue],
    "jwt": FORMS[JwtValue],
}


def test_kinds_agree() -> None:
    assert set(FORMS_BY_KIND) == set(language.KINDS)


def test_formats_agree() -> None:
    assert {kind: set(forms.formats) for kind, forms in FORMS_BY_KIND.items()} == {
        kind: set(formats) for kind, formats in language.FORMATS.items()
    }


def test_dot_forms_agree() -> None:
    assert {kind: set(forms.dot_forms) for kind, forms in FORMS_BY_KIND.items()} == {
        kind: set(forms) for kind, forms in language.DOT_FORMS.items()
    }


def test_raw_formats_agree() -> None:
    raw = {
        kind: {name for name, form in forms.formats.items() if not form.text} for kind, forms in FORMS_BY_KIND.items()
    }
    assert {kind: formats for kind, formats in raw.items() if formats} == {
        kind: set(formats) for kind, formats in language.RAW_FORMATS.items()
    }


def test_encodings_agree() -> None:
    assert set(ENCODINGS) == set(language.ENCODINGS)


def test_a_parsed_text_is_rendered_in_one_pass() -> None:
    """Feature F132, F133, F137: malformed text stays as it is."""
    values = {"a": AsciiValue(text="$$SCONE::b$$"), "b": AsciiValue(text="\t")}
    template = parse_template(r"$$SCONE::a$$$$SCONE::b|escape(json)$$ $$SCONE:a$$")
    assert render(template, values) == rb"$$SCONE::b$$\t $$SCONE:a$$"
