"""docs/session-language.md says what the code does: its tables, every example, every message, every link."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tests.unit.docs_session_language import (
    PAGE,
    REMEDY,
    ROOT,
    TABLES,
    Example,
    examples,
    renewed,
    said_of,
)

from ostiary.broker import carried_out
from ostiary.session import language

TEXT = PAGE.read_text()
EXAMPLES = tuple(example for example in examples(TEXT) if example.label.startswith("yaml"))
ACCEPTED = "".join(example.text for example in EXAMPLES if example.label != "yaml refused")
WITHOUT_EXAMPLE = {
    "persistency", "creator",  # written by services
    "trusted_scone_qe_pubkeys", "min_rsa_signing_key_size",  # without effect
    "certificates", "cas_software_key", "certificate_thumbprint",  # of a kind that has its example
}  # fmt: skip
FACTORS = {key for place in ("tdx", "snp", "nitro", "tpm pcrs") for key in language.KEYS[place]}
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def test_the_tables_and_messages_are_those_of_the_code() -> None:
    assert renewed(TEXT) == TEXT, REMEDY


def test_every_table_has_its_place_in_the_page() -> None:
    assert sorted(re.findall(r"<!-- generated: (.*) -->", TEXT)) == sorted(TABLES)


def test_a_table_that_is_out_of_date_is_noticed() -> None:
    stale = TEXT.replace("Plain `0.3` has what `0.3.9` has", "Plain `0.3` has what `0.3.8` has")
    assert stale != TEXT
    assert renewed(stale) == TEXT


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line {example.line}")
def test_every_example_is_judged_as_the_page_says(example: Example) -> None:
    said = said_of(example.label, example.text)
    shown = f"```\n\n```text\n{said}```\n"
    assert not said or shown in TEXT


@pytest.mark.parametrize(
    ("label", "text", "why"),
    [
        ("yaml", "secret: []\n", "unknown key"),
        ("yaml", "name: shop\n", "accepted, with these warnings"),
        ("yaml warned", "secrets: []\n", "accepted, with these warnings: ()"),
        ("yaml refused", "secrets: []\n", "accepted"),
    ],
)
def test_an_example_with_a_wrong_label_is_noticed(label: str, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"accepted|refused") as caught:
        said_of(label, text)
    assert why in str(caught.value)


def test_every_fence_is_of_a_known_kind() -> None:
    known = {"", "text", "yaml", "yaml refused", "yaml warned"}
    assert {example.label for example in examples(TEXT)} <= known
    assert TEXT.count("\n```") == 2 * len(examples(TEXT)), "a fence is not closed"


@pytest.mark.parametrize("kind", language.KINDS)
def test_every_kind_of_secret_has_an_example(kind: str) -> None:
    assert re.search(rf"kind: {kind}\b", ACCEPTED)


@pytest.mark.parametrize(
    "key",
    sorted(
        {key for keys in (*language.KEYS.values(), *language.KIND_KEYS.values(), language.SECRET_KEYS) for key in keys}
        - WITHOUT_EXAMPLE
        - FACTORS
    ),
)
def test_every_key_has_an_example(key: str) -> None:
    assert re.search(rf"\b{key}:", ACCEPTED), key


@pytest.mark.parametrize("toleration", language.TOLERATE)
def test_every_toleration_is_explained(toleration: str) -> None:
    prose = re.sub(r"<!-- generated.*?<!-- end -->", "", TEXT, flags=re.DOTALL)
    assert f"`{toleration}`" in prose


@pytest.mark.parametrize("factor", sorted(FACTORS))
def test_every_factor_of_another_tee_is_explained(factor: str) -> None:
    prose = re.sub(r"<!-- generated.*?<!-- end -->", "", TEXT, flags=re.DOTALL)
    assert f"`{factor}`" in prose


def test_nothing_is_refused_by_name_but_a_variable_that_is_not_resolved() -> None:
    """The page explains variables elsewhere. What else comes into the module belongs into the page."""
    source = Path(str(carried_out.__file__)).read_text()
    refusals = sum(isinstance(node, ast.Yield) for node in ast.walk(ast.parse(source)))
    assert refusals == 1, "say in docs/session-language.md, 'Not carried out yet', what is refused"


@pytest.mark.parametrize("page", ["docs/session-language.md", "docs/standards.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for name, anchor in LINK.findall(text):
        if name.startswith("https://"):
            continue
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.is_file(), name
        assert not anchor or anchor in _anchors(target.read_text()), f"{name}#{anchor}"


def _anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
