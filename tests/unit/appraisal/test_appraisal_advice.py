"""What is advised for each way in which evidence is refused: place, value, and whether it is wise."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.appraisal.test_appraisal_report import BINDING, CLAIMS, NOW, QE, SIGNER, A, B, with_

from ostiary.appraisal.advice import Advice, Refused, advise
from ostiary.appraisal.patch import Wisdom, apply_operations, patch_text
from ostiary.errors import InputError
from ostiary.evidence.claims import Claims
from ostiary.session import parse_session
from ostiary.session.model import Security, SecurityAttestation

NEVER, FOR_A_TIME, AFTER_REVIEW = Wisdom.NEVER, Wisdom.FOR_A_TIME, Wisdom.AFTER_REVIEW
HEAD = 'version: "0.3.12"\nname: shop\n'
ADMITTING = (
    f"services:\n- {{name: first, mrenclaves: ['{B.hex()}']}}\n- name: web\n  attestation: {{mrenclave: '{A.hex()}'}}\n"
)
SHORT = frozenset({"INTEL-SA-00233"})
LONG = frozenset({"INTEL-SA-00615"})


def refused(text: str, claims: Claims = CLAIMS, binding: bytes = BINDING) -> Refused:
    parsed = parse_session(text)
    service = next(service for service in parsed.session.services if service.name == "web")
    security = parsed.session.security if isinstance(parsed.session.security, Security) else Security()
    attestation = security.attestation
    return Refused(
        claims=claims,
        written=parsed,
        service=service,
        security=attestation if isinstance(attestation, SecurityAttestation) else SecurityAttestation(),
        binding=binding,
        now=NOW,
        singleton_enclaves=security.singleton_enclaves is True,
    )


def advice(text: str, claims: Claims = CLAIMS, binding: bytes = BINDING) -> Advice:
    return advise(refused(text, claims, binding))


def told(found: Advice) -> list[tuple[str, str, Any, Wisdom]]:
    assert found.suffices, found.obstacles
    return [(one.action, one.path, one.value, one.wisdom) for one in found.operations]


TOLERATE, IGNORE = "security.attestation.tolerate", "security.attestation.ignore_advisories"


@pytest.mark.parametrize(
    ("claims", "security", "expected"),
    [
        (with_(debug=True), "", [("add", TOLERATE, "debug-mode", NEVER)]),
        (with_(debug=True, software=True), "", [("add", TOLERATE, "software-platform", NEVER)]),
        (with_(tcb_status="OutOfDate"), "", [("add", TOLERATE, "outdated-tcb", FOR_A_TIME)]),
        (with_(tcb_status="ConfigurationNeeded"), "", [("add", TOLERATE, "insecure-configuration", FOR_A_TIME)]),
        (with_(tcb_status="SWHardeningNeeded"), "", [("add", TOLERATE, "software-hardening-needed", AFTER_REVIEW)]),
        (
            with_(tcb_status="OutOfDateConfigurationNeeded"),
            "",
            [
                ("add", TOLERATE, "outdated-tcb", FOR_A_TIME),
                ("add", TOLERATE, "insecure-configuration", FOR_A_TIME),
            ],
        ),
        (with_(advisories=LONG), "", [("add", IGNORE, "INTEL-SA-00615", FOR_A_TIME)]),
        (with_(advisories=SHORT), "", [("add", IGNORE, "INTEL-SA-00233", FOR_A_TIME)]),
        # A shortcut is one operation in place of two, and no wiser than what it stands in for.
        (
            with_(tcb_status="ConfigurationNeeded", advisories=SHORT),
            "",
            [("add", TOLERATE, "hyperthreading", FOR_A_TIME)],
        ),
        (with_(tcb_status="OutOfDate", advisories=SHORT), "", [("add", TOLERATE, "hyperthreading", FOR_A_TIME)]),
        (
            with_(tcb_status="SWHardeningNeeded", advisories=SHORT),
            "",
            [("add", TOLERATE, "hyperthreading", AFTER_REVIEW)],
        ),
        (
            with_(tcb_status="ConfigurationNeeded", advisories=SHORT),
            "tolerate: [insecure-configuration]",
            [("add", IGNORE, "INTEL-SA-00233", FOR_A_TIME)],
        ),
        # `*` has no effect here, and may not stand beside names.
        (with_(advisories=LONG), 'ignore_advisories: "*"', [("set", IGNORE, ["INTEL-SA-00615"], FOR_A_TIME)]),
        # With debug-mode it has one, so that no advisory has to be named.
        (
            with_(debug=True, advisories=LONG),
            'ignore_advisories: "*"',
            [("add", TOLERATE, "debug-mode", NEVER)],
        ),
    ],
)
def test_advice_on_what_does_not_depend_on_the_variant(
    claims: Claims, security: str, expected: list[tuple[str, str, Any, Wisdom]]
) -> None:
    text = HEAD + ADMITTING + (f"security: {{attestation: {{{security}}}}}\n" if security else "")
    assert told(advice(text, claims)) == expected


def test_advice_on_outdated_firmware_names_the_advisories() -> None:
    found = advice(HEAD + ADMITTING, with_(tcb_status="OutOfDate", advisories=LONG))
    assert "take this out again (advisories: INTEL-SA-00615)" in found.operations[0].why


def test_advice_on_a_machine_that_the_service_does_not_name() -> None:
    text = HEAD + ADMITTING + f"  platforms: ['INTEL_QE_ID:{'1' * 32}']\n"
    assert told(advice(text)) == [("add", "services[1].platforms", f"INTEL_QE_ID:{QE.hex()}", AFTER_REVIEW)]


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ("singleton_enclaves: true", "security.singleton_enclaves"),
        (
            "attestation: {must_be_sgx_local: true, tolerate: [local-attestation-trust-cas-tcb]}",
            "security.attestation.must_be_sgx_local",
        ),
    ],
)
def test_to_drop_a_demand_is_never_wise(section: str, path: str) -> None:
    assert told(advice(HEAD + ADMITTING + f"security: {{{section}}}\n")) == [("remove", path, None, NEVER)]


NEW = "services[0].attestation"
SIGNED = f"mrsigner: '{SIGNER.hex()}', isvprodid: 7"


@pytest.mark.parametrize(
    ("attestation", "path", "value", "wisdom"),
    [
        (f"{{mrenclave: '{B.hex()}'}}", f"{NEW}[0].mrenclave", A.hex(), AFTER_REVIEW),
        (f"[{{mrenclave: ['{B.hex()}']}}]", f"{NEW}[0].mrenclave", A.hex(), AFTER_REVIEW),
        (f"[{{signer: {{{SIGNED}, isvsvn_min: 4}}}}]", f"{NEW}[0].signer.isvsvn_min", 3, NEVER),
        (f"[{{signer: {{{SIGNED}, isvsvn_max: 2}}}}]", f"{NEW}[0].signer.isvsvn_max", 3, AFTER_REVIEW),
        # The exact version is not changed: what runs now must still start.
        (
            f"[{{signer: {{{SIGNED}, isvsvn: 4}}}}]",
            NEW,
            {"signer": {"mrsigner": SIGNER.hex(), "isvprodid": 7, "isvsvn": 3}},
            AFTER_REVIEW,
        ),
        # Nor is another signer let in by a variant that was for one.
        (
            f"[{{signer: {{mrsigner: '{B.hex()}', isvprodid: 7}}}}]",
            NEW,
            {"signer": {"mrsigner": SIGNER.hex(), "isvprodid": 7}},
            AFTER_REVIEW,
        ),
        # A new variant has the factors of the nearest one, all of them.
        (
            f"[{{mrenclave: '{B.hex()}', signer: {{mrsigner: '{B.hex()}', isvprodid: 1, isvsvn_min: 9}}}}]",
            NEW,
            {"mrenclave": [A.hex()], "signer": {"mrsigner": SIGNER.hex(), "isvprodid": 7, "isvsvn": 3}},
            AFTER_REVIEW,
        ),
        # An older version of the same product was shut out, whatever else is new about it.
        (
            f"[{{mrenclave: '{B.hex()}', signer: {{{SIGNED}, isvsvn_min: 4}}}}]",
            NEW,
            {"mrenclave": [A.hex()], "signer": {"mrsigner": SIGNER.hex(), "isvprodid": 7, "isvsvn": 3}},
            NEVER,
        ),
        (
            f"[{{mrenclave: '{B.hex()}', signer: {{{SIGNED}, isvsvn_max: 2}}}}]",
            NEW,
            {"mrenclave": [A.hex()], "signer": {"mrsigner": SIGNER.hex(), "isvprodid": 7, "isvsvn": 3}},
            AFTER_REVIEW,
        ),
    ],
)
def test_advice_on_the_nearest_variant(attestation: str, path: str, value: Any, wisdom: Wisdom) -> None:
    text = HEAD + f"services:\n- name: web\n  attestation: {attestation}\n"
    action = "set" if path.endswith(("_min", "_max")) else "add"
    assert told(advice(text)) == [(action, path, value, wisdom)]


def test_a_session_of_an_old_version_gets_a_measurement_in_its_own_form() -> None:
    text = f'version: "0.2"\nname: shop\nservices:\n- name: web\n  mrenclaves: [{B.hex()}]\n'
    assert told(advice(text)) == [("add", "services[0].mrenclaves", A.hex(), AFTER_REVIEW)]


def test_a_change_that_needs_a_newer_version_of_the_language_says_so() -> None:
    text = f'version: "0.3.0"\nname: shop\nservices:\n- name: web\n  mrenclaves: [{A.hex()}]\n'
    found = advice(text, with_(tcb_status="OutOfDate"))
    assert told(found)[1] == ("set", "version", "0.3.1", AFTER_REVIEW)
    old = advice(text.replace("0.3.0", "0.2"), with_(tcb_status="OutOfDate"))
    assert old.obstacles == ("the session is of version 0.2; rewrite it for 0.3.1",)


@pytest.mark.parametrize(
    ("claims", "binding", "says"),
    [
        (with_(tcb_status="Revoked"), BINDING, "tcb_status: found Revoked; use another machine"),
        (CLAIMS, bytes(64), "report_data: found evidence made for another nonce"),
        (with_(advisories=frozenset({"AMD-SB-1"})), BINDING, "ignore_advisories: AMD-SB-1"),
        (with_(conditions=frozenset({"no-such-word"})), BINDING, "tolerate: no-such-word"),
    ],
)
def test_what_no_session_can_admit_is_an_obstacle(claims: Claims, binding: bytes, says: str) -> None:
    found = advice(HEAD + ADMITTING, claims, binding)
    assert not found.suffices
    assert found.obstacles[0].startswith(says)
    assert found.operations == ()


def test_beside_an_obstacle_the_rest_is_advised_all_the_same() -> None:
    found = advice(HEAD + ADMITTING, with_(tcb_status="Revoked", measurements={"mrenclave": B}))
    assert not found.suffices
    assert [one.path for one in found.operations] == ["services[1].attestation[0].mrenclave"]


def test_evidence_that_names_no_machine_cannot_be_added_to_platforms() -> None:
    text = HEAD + ADMITTING + f"  platforms: ['INTEL_QE_ID:{'1' * 32}']\n"
    assert advice(text, with_(qe_id=None)).obstacles[0].startswith("platforms: found evidence that names no quoting")


VARIABLES = "secrets:\n- {name: x, kind: config-fragment, value: '{}'}\n"


@pytest.mark.parametrize("section", ["$$SCONE::x$$", "{attestation: $$SCONE::x$$}"])
def test_what_stands_behind_a_variable_is_to_be_changed_there(section: str) -> None:
    found = advice(HEAD + ADMITTING + f"security: {section}\n" + VARIABLES, with_(tcb_status="OutOfDate"))
    assert not found.suffices
    assert "security is what $$SCONE::x$$ stands for; change it there: add outdated-tcb" in found.obstacles


def test_beside_a_variant_that_is_a_variable_a_new_one_is_advised() -> None:
    """The place in the session and that in the service differ: the variable may have become several."""
    text = HEAD + "services:\n- name: web\n  attestation: [$$SCONE::x$$]\n" + VARIABLES
    start = refused(text)
    resolved = dataclasses.replace(
        start.service, attestation=parse_session(HEAD + ADMITTING).session.services[0].attestation
    )
    found = advise(dataclasses.replace(start, service=resolved))
    assert told(found) == [("add", NEW, {"mrenclave": [A.hex()]}, AFTER_REVIEW)]


def test_a_service_without_variants_gets_one() -> None:
    text = HEAD + "services:\n- name: web\nsecurity: {attestation: {mode: none}}\n"
    assert told(advice(text)) == [("add", NEW, {"mrenclave": [A.hex()]}, AFTER_REVIEW)]


def test_to_admit_an_image_that_says_nothing_of_itself_is_never_wise() -> None:
    """Nitro in debug mode measures zeros, which are those of any image."""
    claims = with_(tee="nitro", measurements={"pcr0": bytes(48), "pcr8": bytes(48)}, signer=None, debug=True)
    assert told(advice(HEAD + ADMITTING, claims)) == [
        ("add", TOLERATE, "debug-mode", NEVER),
        ("add", "services[1].attestation", {"nitro": {"pcr0": ["0" * 96]}}, NEVER),
    ]


def test_evidence_without_what_names_a_program_gets_no_variant() -> None:
    found = advice(HEAD + ADMITTING, with_(tee="snp", measurements={"measurement": bytes(48)}, signer=None))
    assert found.obstacles == ("service web: no variant can be written for such evidence here",)


def test_a_session_of_an_old_version_cannot_say_what_other_tees_measure() -> None:
    text = f'version: "0.2"\nname: shop\nservices:\n- name: web\n  mrenclaves: [{B.hex()}]\n'
    found = advice(text, with_(tee="tdx", measurements={"mrtd": b"1" * 48}, signer=None))
    assert not found.suffices
    assert found.operations == ()


def test_a_guest_gets_a_variant_with_its_kernel() -> None:
    claims = with_(tee="tdx", measurements={f"rtmr{n}": b"1" * 48 for n in range(4)} | {"mrtd": b"2" * 48}, signer=None)
    ((_, path, value, wisdom),) = told(advice(HEAD + ADMITTING, claims))
    assert (path, wisdom) == ("services[1].attestation", AFTER_REVIEW)
    assert value == {"tdx": {"mrtd": [(b"2" * 48).hex()], "rtmr1": [(b"1" * 48).hex()], "rtmr2": [(b"1" * 48).hex()]}}


def test_a_factor_that_stands_behind_a_variable_is_not_widened() -> None:
    """The session says `signer: $$SCONE::x$$`; nothing can be added to that here."""
    text = HEAD + "services:\n- name: web\n  attestation: [{signer: $$SCONE::x$$}]\n" + VARIABLES
    assert told(advice(text)) == [("add", NEW, {"mrenclave": [A.hex()]}, AFTER_REVIEW)]


def test_endorsements_that_are_too_old_may_be_older_for_a_time() -> None:
    text = HEAD + ADMITTING + "security: {attestation: {max_age: 2 days}}\n"
    claims = with_(issued=NOW - timedelta(days=4, hours=3))
    assert told(advice(text, claims)) == [("set", "security.attestation.max_age", "5 days", FOR_A_TIME)]
    assert advice(text, with_(issued=None)).obstacles[0].startswith("security.attestation.max_age: found endorsements")


class TestPatch:
    TEXT = HEAD + ADMITTING + "security:\n  service_access_token: not-for-the-patch\n"

    def patch(self, claims: Claims) -> str:
        start = refused(self.TEXT, claims)
        return patch_text(start.written.normal, advise(start).operations)

    def test_it_has_what_changes_and_nothing_else(self) -> None:
        claims = with_(measurements={"mrenclave": B}, tcb_status="OutOfDate", advisories=LONG)
        assert self.patch(claims) == (
            "security:\n  attestation:\n    tolerate:\n    - outdated-tcb\n"
            "    ignore_advisories:\n    - INTEL-SA-00615\n"
            f"services:\n- name: web\n  attestation:\n  - mrenclave:\n    - '{A.hex()}'\n    - '{B.hex()}'\n"
        )

    def test_without_operations_it_is_empty(self) -> None:
        assert self.patch(CLAIMS) == ""

    def test_one_that_nobody_would_merge_by_hand_is_left_out(self) -> None:
        many = ", ".join(f"'{number:064x}'" for number in range(1000))
        text = HEAD + f"services:\n- name: web\n  attestation: {{mrenclave: [{many}]}}\n"
        start = refused(text)
        assert patch_text(start.written.normal, advise(start).operations) == ""

    def test_carrying_it_out_leaves_the_document_as_it_was(self) -> None:
        start = refused(self.TEXT, with_(measurements={"mrenclave": B}))
        before = dict(start.written.normal)
        apply_operations(start.written.normal, advise(start).operations)
        assert start.written.normal == before

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("", "an operation without a path"),
            ("a b", "is no path in a session"),
            ("services[7].platforms", "leads nowhere"),
            ("name.x", "leads nowhere"),
            ("services[0]", "leads nowhere"),
            ("services.name.x", "leads nowhere"),
        ],
    )
    def test_a_path_that_leads_nowhere_is_refused(self, path: str, says: str) -> None:
        (operation,) = advice(self.TEXT, with_(tcb_status="OutOfDate")).operations
        with pytest.raises(InputError, match=says):
            apply_operations(refused(self.TEXT).written.normal, [dataclasses.replace(operation, path=path)])

    def test_an_operation_of_another_kind_is_refused(self) -> None:
        (operation,) = advice(self.TEXT, with_(tcb_status="OutOfDate")).operations
        with pytest.raises(InputError, match="no operation 'burn'"):
            apply_operations(refused(self.TEXT).written.normal, [dataclasses.replace(operation, action="burn")])

    @pytest.mark.parametrize("written", [{"mrenclave": "old"}, [{"mrenclave": ["old"]}], [{"mrenclave": "old"}]])
    def test_what_is_written_without_a_list_becomes_one(self, written: Any) -> None:
        """Authors may write one variant, and one measurement, without a list around it."""
        document = {"services": [{"name": "web", "attestation": written}]}
        (operation,) = advice(
            HEAD + ADMITTING.replace("first", "other"), with_(measurements={"mrenclave": B})
        ).operations
        operation = dataclasses.replace(operation, path="services[0].attestation[0].mrenclave", value="new")
        changed: Any = apply_operations(document, [operation])
        variant = changed["services"][0]["attestation"]
        assert (variant if isinstance(variant, dict) else variant[0])["mrenclave"] == ["old", "new"]
