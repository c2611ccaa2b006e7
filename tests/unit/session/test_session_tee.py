"""Attestation variants for other TEEs than SGX: what the language takes, what it refuses, and the normal form of it."""

from __future__ import annotations

import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from ostiary.errors import SessionFormatError
from ostiary.session import ParsedSession, language, parse_session
from ostiary.session.model import SecurityAttestation, TcbRules, TeeFactors, TeeVariant, Variable, Variant
from ostiary.session.placeholder import Placeholder
from ostiary.session.schema import schema
from ostiary.session.tee import EVENTS, measurement_bytes, steps_to

A, B = "ab" * 48, "cd" * 48
PCR = "ef" * 32
ZERO = "00" * 48
X = Variable(placeholder=Placeholder(name="x"))


def parsed(variant: str, *, version: str = "0.3.12", attestation: str = "{}") -> ParsedSession:
    return parse_session(f"""
version: "{version}"
name: s
services:
- name: web
  attestation: {variant}
  pwd: /
security: {{attestation: {attestation}}}
secrets:
- {{name: x, kind: ascii, value: y}}
""")


def mistakes(variant: str, **more: str) -> list[str]:
    with pytest.raises(SessionFormatError) as refusal:
        parsed(variant, **more)
    return [f"{finding.path}: {finding.message}" for finding in refusal.value.findings]


def factors(*measurements: tuple[str, str | Variable], **bounds: int | Variable) -> TeeFactors:
    return TeeFactors(
        measurements=tuple(
            (name, (value if isinstance(value, Variable) else bytes.fromhex(value),)) for name, value in measurements
        ),
        **bounds,
    )


@pytest.mark.parametrize(
    ("text", "tee", "expected"),
    [
        (f"{{tdx: {{rtmr1: {B}, mrtd: {A}}}}}", "tdx", factors(("mrtd", A), ("rtmr1", B))),
        (f"{{tdx: {{rtmr2: {B}, mrtd: {A.upper()}}}}}", "tdx", factors(("mrtd", A), ("rtmr2", B))),
        (
            f"{{snp: {{measurement: {A}, host_data: {PCR}, family_id: {A[:32]}, guest_svn_min: 4294967295}}}}",
            "snp",
            factors(
                ("measurement", A), ("host_data", PCR), ("family_id", A[:32]), guest_svn_min=4294967295
            ),
        ),
        (
            f"{{snp: {{id_key_digest: {A}, image_id: {A[:32]}, guest_svn_min: $$SCONE::x$$, vmpl_max: $$SCONE::x$$}}}}",
            "snp",
            factors(("id_key_digest", A), ("image_id", A[:32]), guest_svn_min=X, vmpl_max=X),
        ),
        (f"{{snp: {{author_key_digest: {A}}}}}", "snp", factors(("author_key_digest", A))),
        (f"{{snp: {{measurement: {A}, id_key_digest: '{ZERO}'}}}}", "snp",
         factors(("measurement", A), ("id_key_digest", ZERO))),
        (f"{{nitro: {{pcr8: {B}, pcr0: $$SCONE::x$$}}}}", "nitro", factors(("pcr0", X), ("pcr8", B))),
        (
            f"{{tpm: {{pcrs: {{sha384: {{'4': {A}}}, sha256: {{11: {PCR}, 7: {PCR}}}}}}}}}",
            "tpm",
            factors(("sha256:7", PCR), ("sha256:11", PCR), ("sha384:4", A)),
        ),
        (
            f"{{tpm: {{events: {{sha256: {{4: {PCR}, 7: $$SCONE::x$$}}}}, pcrs: {{sha256: {{7: {PCR}}}}}}}}}",
            "tpm",
            factors(("sha256:7", PCR), ("events:sha256:4", PCR), ("events:sha256:7", X)),
        ),
        (
            f"{{snp: {{measurement: {A}, pcrs: {{sha256: {{4: {PCR}}}}}, vmpl_max: 0}}}}",
            "snp",
            factors(("measurement", A), ("sha256:4", PCR), vmpl_max=0),
        ),
        (
            f"{{tdx: {{mrtd: {A}, events: {{sha384: {{4: {A}}}}}}}}}",
            "tdx",
            factors(("mrtd", A), ("events:sha384:4", A)),
        ),
    ],
)  # fmt: skip
def test_factors_are_read_in_the_order_of_the_language(text: str, tee: str, expected: TeeFactors) -> None:
    found = parsed(text)
    assert found.warnings == ()
    assert found.session.services[0].attestation == (TeeVariant(tee=tee, factors=expected),)


def test_variants_of_several_tees_stand_beside_each_other() -> None:
    session = parsed(f"[{{mrenclave: {PCR}}}, {{nitro: {{pcr0: [{A}, {B}]}}}}, {{tdx: $$SCONE::x$$}}]").session
    assert session.services[0].attestation == (
        Variant(mrenclave=(bytes.fromhex(PCR),)),
        TeeVariant(
            tee="nitro",
            factors=TeeFactors(measurements=(("pcr0", (bytes.fromhex(A), bytes.fromhex(B))),)),
        ),
        TeeVariant(tee="tdx", factors=X),
    )


MRTD = f"mrtd: {A}, rtmr1: {A}"
ANY = "services[0].attestation.{}: this would admit any program; {}; zeros name none"
NEEDS_MRTD = ANY.format("tdx", "give mrtd, without which any firmware extends the other registers as it likes")
NEEDS_SNP = ANY.format("snp", "give measurement, id_key_digest or author_key_digest")
NEEDS_NITRO = ANY.format("nitro", "give pcr0, the image, or pcr8, its signer")
NEEDS_TPM = ANY.format("tpm", "give PCR 4, or PCR 7 with 9 or 11 of the same bank")
ONE_TEE = "services[0].attestation: a variant is of one TEE, and mrenclave and signer are of SGX; write a variant each"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{tdx: {}}", [NEEDS_MRTD]),
        (f"{{tdx: {{rtmr1: {A}, mrconfigid: {A}}}}}", [NEEDS_MRTD]),
        (f"{{tdx: {{mrtd: '{ZERO}'}}}}", [NEEDS_MRTD]),
        (f"{{tdx: {{mrtd: [{A}, '{ZERO}']}}}}", [NEEDS_MRTD]),
        (f"{{snp: {{host_data: {PCR}, vmpl_max: 0}}}}", [NEEDS_SNP]),
        (f"{{snp: {{id_key_digest: '{ZERO}'}}}}", [NEEDS_SNP]),
        (f"{{nitro: {{pcr1: {A}, pcr2: {A}}}}}", [NEEDS_NITRO]),
        (f"{{nitro: {{pcr8: '{ZERO}'}}}}", [NEEDS_NITRO]),
        (f"{{tpm: {{pcrs: {{sha256: {{7: {PCR}}}}}}}}}", [NEEDS_TPM]),
        (f"{{tpm: {{pcrs: {{sha256: {{4: '{ZERO[:64]}'}}}}}}}}", [NEEDS_TPM]),
        ("{tpm: {}}", [NEEDS_TPM]),
        (f"{{tpm: {{events: {{sha256: {{7: {PCR}}}}}}}}}", [NEEDS_TPM]),
        (f"{{tpm: {{events: {{sha256: {{4: [{PCR}, '{ZERO[:64]}']}}}}}}}}", [NEEDS_TPM]),
        (f"{{snp: {{pcrs: {{sha256: {{4: {PCR}}}}}}}}}", [NEEDS_SNP]),
        (f"{{tdx: {{events: {{sha256: {{4: {PCR}}}}}}}}}", [NEEDS_MRTD]),
        (
            f"{{tpm: {{pcrs: {{sha256: {{4: {PCR}}}}}, events: {{sha256: {{4: []}}}}}}}}",
            [("services[0].attestation.tpm.events.sha256.4: the list of measurements is empty, which would admit "
             "nobody; add one")],
        ),
        (
            f"{{nitro: {{pcr0: {A}, pcrs: {{sha256: {{4: {PCR}}}}}}}}}",
            ['services[0].attestation.nitro.pcrs: unknown key "pcrs" in nitro: did you mean pcr8?'],
        ),
        (f"{{tpm: {{pcrs: {{sha256: {{9: {PCR}, 10: {PCR}, 11: {PCR}}}}}}}}}", [NEEDS_TPM]),
        (f"{{tpm: {{pcrs: {{sha256: {{7: {PCR}}}, sha384: {{11: {A}}}}}}}}}", [NEEDS_TPM]),
        (f"{{tpm: {{pcrs: {{sha256: {{7: {PCR}, 11: '{ZERO[:64]}'}}}}}}}}", [NEEDS_TPM]),
        (
            f"{{tpm: {{pcrs: {{sha256: {{4: {PCR}}}, sha384: {{}}}}}}}}",
            [("services[0].attestation.tpm.pcrs.sha384: no PCR, which would demand nothing; name one, or leave the "
             "bank out")],
        ),
        (f"{{tdx: {{{MRTD}}}, mrenclave: {PCR}}}", [ONE_TEE]),
        (f"{{tdx: {{{MRTD}}}, signer: {{mrsigner: {PCR}, isvprodid: 1}}}}", [ONE_TEE]),
        (f"{{tdx: {{{MRTD}}}, nitro: {{pcr0: {A}}}}}", [ONE_TEE]),
        (
            "{tdx: null}",
            [("services[0].attestation: a variant without factors would admit every program; give mrenclave or signer, "
             "or tdx, snp, nitro or tpm")],
        ),
        ("{tdx: []}", ["services[0].attestation.tdx: found a list, expected a mapping with the keys of tdx"]),
        (
            "{tdx: {mrtd: []}}",
            ["services[0].attestation.tdx.mrtd: the list of measurements is empty, which would admit nobody; add one"],
        ),
        ("{tdx: {mrtd: null}}", ["services[0].attestation.tdx.mrtd: found nothing, expected text"]),
        (f"{{tdx: {{{MRTD}, rtmr2: null}}}}", ["services[0].attestation.tdx.rtmr2: found nothing, expected text"]),
        (
            f"{{tdx: {{mrtd: {PCR}}}}}",
            [f'services[0].attestation.tdx.mrtd: found "{PCR[:60]}…" (64 characters), expected 96 hex digits'],
        ),
        (
            f"{{nitro: {{pcr0: {A}, pcr5: {A}}}}}",
            ['services[0].attestation.nitro.pcr5: unknown key "pcr5" in nitro: did you mean pcr8?'],
        ),
        (
            f"{{snp: {{measurment: {A}}}}}",
            ['services[0].attestation.snp.measurment: unknown key "measurment" in snp: did you mean measurement?'],
        ),
        (
            f"{{snp: {{measurement: {A}, vmpl_max: 4, guest_svn_min: 4294967296}}}}",
            ['services[0].attestation.snp.vmpl_max: found "4", expected a decimal number from 0 to 3',
             ('services[0].attestation.snp.guest_svn_min: found "4294967296", expected a decimal number from 0 to '
             "4294967295")],
        ),
        (
            f"{{snp: {{measurement: {A}, vmpl_max: null}}}}",
            ["services[0].attestation.snp.vmpl_max: found nothing, expected a decimal number from 0 to 3"],
        ),
        (
            f"{{tpm: {{pcrs: {{sha256: {{4: {PCR}, 24: {PCR}}}}}}}}}",
            ['services[0].attestation.tpm.pcrs.sha256.24: unknown key "24" in sha256 PCRs: did you mean 4?'],
        ),
        (
            f"{{tpm: {{pcrs: {{sha256: {{4: {PCR}}}, sha1: {{4: {PCR[:40]}}}}}}}}}",
            ['services[0].attestation.tpm.pcrs.sha1: unknown key "sha1" in tpm pcrs: did you mean sha384?'],
        ),
        ("{tpm: {pcrs: {sha256: {4: null}}}}",
         ["services[0].attestation.tpm.pcrs.sha256.4: found nothing, expected text"]),
        (
            "{snp: {measurement: $$SCONE::nonesuch$$}}",
            [('services[0].attestation.snp.measurement: "$$SCONE::nonesuch$$" names a secret that is not in secrets; '
             "expected one of x")],
        ),
    ],
)  # fmt: skip
def test_what_is_empty_or_admits_anybody_is_a_mistake(text: str, expected: list[str]) -> None:
    assert mistakes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{{tdx: {{mrtd: {A}, rtmr0: {A}}}}}",
            "mrtd says nothing about the kernel and its command line; add rtmr1 and rtmr2, which measure them",
        ),
        (f"{{nitro: {{pcr0: '{ZERO}'}}}}", "zeros are what every enclave in debug mode has; any such is admitted"),
    ],
)
def test_what_admits_more_than_it_seems_to_is_a_warning(text: str, expected: str) -> None:
    assert [finding.message for finding in parsed(text).warnings] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{{nitro: {{pcr8: {A}}}}}", "pcr8 admits every image of that signer, older ones too; pcr0 admits one"),
        (
            f"{{snp: {{id_key_digest: {A}}}}}",
            "every guest of that signer is admitted; add family_id, image_id or measurement",
        ),
    ],
)
def test_what_admits_all_of_a_signer_is_noted(text: str, expected: str) -> None:
    found = parsed(text)
    assert found.warnings == ()
    assert [finding.message for finding in found.notes] == [expected]


@pytest.mark.parametrize(
    ("variant", "attestation", "what"),
    [
        (f"{{tdx: {{{MRTD}}}}}", "{}", "tdx"),
        (f"{{snp: {{measurement: {A}}}}}", "{}", "snp"),
        (f"{{nitro: {{pcr0: {A}}}}}", "{}", "nitro"),
        (f"{{tpm: {{pcrs: {{sha256: {{4: {PCR}}}}}}}}}", "{}", "tpm"),
        (f"{{mrenclave: {PCR}}}", "{tcb: {grace: 30d}}", "tcb"),
        (f"{{mrenclave: {PCR}}}", "{max_age: 30d}", "max_age"),
        (f"{{mrenclave: {PCR}}}", "{tolerate: [service-td]}", "toleration service-td"),
        (f"{{mrenclave: {PCR}}}", "{tolerate: [sept-ve-disable-off]}", "toleration sept-ve-disable-off"),
        (f"{{mrenclave: {PCR}}}", "{tolerate: [migration-agent]}", "toleration migration-agent"),
        (f"{{mrenclave: {PCR}}}", "{tolerate: [td-relaunch-advised]}", "toleration td-relaunch-advised"),
    ],
)
def test_what_is_ours_needs_the_newest_version(variant: str, attestation: str, what: str) -> None:
    (mistake,) = mistakes(variant, version="0.3.11", attestation=attestation)
    assert f'{what} needs version 0.3.12, found 0.3.11; write version: "0.3.12"' in mistake
    parsed(variant, attestation=attestation)


def test_durations_are_read_as_elsewhere() -> None:
    session = parsed(f"{{mrenclave: {PCR}}}", attestation="{tcb: {grace: 4 weeks}, max_age: 1h 30m}").session
    assert isinstance(session.attestation, SecurityAttestation)
    assert isinstance(session.attestation.tcb, TcbRules)
    assert (str(session.attestation.tcb.grace), str(session.attestation.max_age)) == ("28 days, 0:00:00", "1:30:00")


@pytest.mark.parametrize(
    ("attestation", "tcb", "max_age"),
    [
        ("{tcb: $$SCONE::x$$}", X, None),
        ("{tcb: {grace: $$SCONE::x$$}}", TcbRules(grace=X), None),
        ("{max_age: $$SCONE::x$$}", None, X),
    ],
)
def test_a_duration_may_be_a_variable(attestation: str, tcb: object, max_age: object) -> None:
    found = parsed(f"{{mrenclave: {PCR}}}", attestation=attestation)
    assert isinstance(found.session.attestation, SecurityAttestation)
    assert (found.session.attestation.tcb, found.session.attestation.max_age) == (tcb, max_age)
    again = parse_session(found.text)
    assert (again.session, again.hash) == (found.session, found.hash)


AT = "security.attestation."


@pytest.mark.parametrize(
    ("attestation", "expected"),
    [
        ("{tcb: {}}", AT + "tcb.grace: grace is missing; say how long a TCB level that became out of date is "
                           "tolerated, such as 30 days"),
        ("{tcb: {grace: null}}", AT + "tcb.grace: grace is missing; say how long a TCB level that became out of date "
                                      "is tolerated, such as 30 days"),
        ("{tcb: {grace: 0d}}", AT + "tcb.grace: expected more than zero and at most 100 years"),
        ("{tcb: {grace: ''}}", AT + "tcb.grace: no duration; write one such as 30 days, or leave the key out"),
        ("{tcb: 30d}", AT + 'tcb: found "30d", expected a mapping with the keys of tcb'),
        ("{tcb: {grase: 30d, grace: 1d}}", AT + 'tcb.grase: unknown key "grase" in tcb: did you mean grace?'),
        ("{max_age: 30}", AT + "max_age: expected one or more numbers with a unit, such as 90 days or 1year 6months"),
        ("{max_age: null}", AT + "max_age: found nothing, expected text"),
        ("{max_age: [1d]}", AT + "max_age: found a list, expected text"),
        ("{max_age: 3 fortnights}", AT + "max_age: unknown unit fortnights, expected one of s m h d w M y or second "
                                         "… year"),
    ],
)  # fmt: skip
def test_a_duration_that_says_nothing_is_a_mistake(attestation: str, expected: str) -> None:
    assert mistakes(f"{{mrenclave: {PCR}}}", attestation=attestation) == [expected]


def test_all_of_it_is_part_of_the_normal_form() -> None:
    """Members in the order of the language, single values as lists, hex in lower case, durations in largest units."""
    found = parsed(
        f"[{{snp: {{vmpl_max: 1, measurement: {A.upper()}}}}}, {{tdx: $$SCONE::x$$}}, "
        f"{{tpm: {{pcrs: {{sha256: {{11: {PCR}, 4: [{PCR}]}}}}}}}}]",
        attestation="{max_age: 365 days, tcb: {grace: 720h}, tolerate: [migration-agent]}",
    )
    form = json.loads(json.dumps(found.normal))
    assert form["services"][0]["attestation"] == [
        {"snp": {"measurement": [A], "vmpl_max": 1}},
        {"tdx": "$$SCONE::x$$"},
        {"tpm": {"pcrs": {"sha256": {"4": [PCR], "11": [PCR]}}}},
    ]
    assert list(form["services"][0]["attestation"][2]["tpm"]["pcrs"]["sha256"]) == ["4", "11"]
    assert form["security"] == {
        "attestation": {
            "mode": "hardware",
            "tolerate": ["migration-agent"],
            "tcb": {"grace": "30days"},
            "max_age": "11months 30days 3h 50m 24s",
        }
    }
    again = parse_session(found.text)
    assert (again.session, again.hash) == (found.session, found.hash)


@pytest.mark.parametrize("text", [
    f"{{tdx: {{mrtd: [{A}, {B}], rtmr1: {A}}}}}",
    f"{{snp: {{measurement: {A}, guest_svn_min: 3, vmpl_max: $$SCONE::x$$}}}}",
    "{nitro: $$SCONE::x$$}",
    f"{{tpm: {{pcrs: {{sha384: {{23: {A}, 4: {A}}}}}}}}}",
])  # fmt: skip
def test_the_schema_admits_it(text: str) -> None:
    document = YAML(typ="safe").load(f'{{version: "0.3.12", name: s, services: [{{name: web, attestation: {text}}}]}}')
    assert list(Draft202012Validator(schema()).iter_errors(_with_text_keys(document))) == []


@pytest.mark.parametrize("text", [
    f"{{tdx: {{rtmr1: {A}}}}}",
    f"{{tdx: {{mrtd: {PCR}}}}}",
    f"{{snp: {{measurement: {A}, vmpl_max: 4}}}}",
    "{nitro: {pcr0: null}}",
    "{tpm: {pcrs: {sha256: {}}}}",
    f"{{tpm: {{pcrs: {{sha256: {{24: {PCR}}}}}}}}}",
])  # fmt: skip
def test_the_schema_marks_mistakes(text: str) -> None:
    document = YAML(typ="safe").load(f'{{version: "0.3.12", name: s, services: [{{name: web, attestation: {text}}}]}}')
    assert list(Draft202012Validator(schema()).iter_errors(_with_text_keys(document)))


def test_the_schema_says_whose_it_is() -> None:
    found = schema()["$defs"]
    assert isinstance(found, dict)
    for place, key in (("attestation_variant", "tdx"), ("security_attestation", "max_age")):
        assert found[place]["properties"][key]["description"] == "From 0.3.12. Ostiary's own, not SCONE's."
    assert found["attestation_variant"]["properties"]["signer"]["description"] == "From 0.3.7."


def _with_text_keys(value: object) -> object:
    """YAML 1.2 of sessions keeps the spelling of keys; a schema knows text keys alone."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(member) for key, member in value.items()}
    return [_with_text_keys(element) for element in value] if isinstance(value, list) else value


@st.composite
def variants(draw: st.DrawFn) -> dict[str, object]:
    """A variant for one TEE with some of its factors, each one value or several."""
    tee = draw(st.sampled_from(language.TEES))
    identity = draw(st.sampled_from(sorted(sorted(together) for together in language.IDENTIFYING[tee])))
    known = (
        [f"{bank}:{number}" for bank in language.KEYS["tpm pcrs"] for number in language.PCRS]
        if "pcrs" in language.KEYS[tee]
        else []
    )
    known += [f"{EVENTS}{name}" for name in known]
    known += [name for name in language.KEYS[tee] if not name.endswith(("_min", "_max", "pcrs", "events"))]
    names = {*identity, *draw(st.lists(st.sampled_from(known), max_size=4))}
    flat: dict[str, object] = {}
    for name in sorted(names, key=lambda _: draw(st.integers(0, 99))):
        size = measurement_bytes(tee, name)
        value = st.binary(min_size=size, max_size=size).filter(any).map(bytes.hex)
        flat[name] = draw(st.one_of(value, value.map(str.upper), st.lists(value, min_size=1, max_size=3)))
    nested: dict[str, object] = {}
    for name, found in flat.items():
        *way, last = steps_to(name)
        parent = nested
        for step in way:
            parent = cast("dict[str, object]", parent.setdefault(step, {}))
        parent[last] = found
    return {tee: nested}


@given(st.lists(variants(), min_size=1, max_size=3))
def test_the_normal_form_of_any_variant_says_the_same(written: list[dict[str, object]]) -> None:
    """And the order of factors means nothing, while that of variants does."""
    found = parsed(json.dumps(written))
    again = parse_session(found.text)
    assert (again.session, again.hash) == (found.session, found.hash)
    turned = parsed(json.dumps([_turned(variant) for variant in written]))
    assert turned.hash == found.hash


def _turned(value: object) -> object:
    """The mappings in it, from their end."""
    if isinstance(value, dict):
        return {name: _turned(member) for name, member in reversed(list(value.items()))}
    return value
