"""The page of a denial: one screen, in plain sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.simulators.commands import Scone
from tests.unit.appraisal.test_appraisal_advice import ADMITTING, HEAD, LONG, refused
from tests.unit.appraisal.test_appraisal_report import CLAIMS, URL, A, B, with_

from ostiary.appraisal.advice import advise
from ostiary.appraisal.form import write_advice, write_claims, write_report
from ostiary.appraisal.patch import patch_text
from ostiary.cli import explain
from ostiary.cli.explain_page import COLUMNS, page, summary
from ostiary.errors import InputError
from ostiary.evidence.claims import Claims


def denial(claims: Claims | None = CLAIMS, text: str = HEAD + ADMITTING, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "form": 1,
        "id": "0123456789abcdef",
        "time": "2026-11-23T12:00:00.000Z",
        "last_time": "2026-11-23T12:00:09.000Z",
        "times": 1,
        "session": "shop",
        "session_hash": "e" * 64,
        "service": "web",
        "stage": "appraisal",
        "reasons": ["the evidence is authentic, but the session does not admit it"],
        "evidence": None if claims is None else write_claims(claims),
        "report": None,
        "advice": None,
    }
    if claims is not None:
        start = refused(text, claims)
        advice = advise(start)
        document["report"] = write_report(start.report(), most_variants=2)
        patch = patch_text(start.written.normal, advice.operations)
        document["advice"] = {**write_advice(advice), "patch": patch}
    return {**json.loads(json.dumps(document)), **changes}


def test_the_whole_page() -> None:
    claims = with_(measurements={"mrenclave": B}, tcb_status="OutOfDate", advisories=LONG)
    assert (
        page(denial(claims))
        == f"""\
Denial 0123456789abcdef: service web of session shop was not started
  2026-11-23T12:00:00.000Z
  session version {"e" * 64}

What was tried
  sgx evidence: mrenclave {B.hex()}; signer
  {"05" * 32}; product 7; version 3; TCB
  OutOfDate; advisories: INTEL-SA-00615

What failed: what the evidence says, against what the session admits
  holds  report_data: evidence made for this connection
  holds  debug: a production enclave
  FAILS  tolerate: outdated-tcb
         found    TCB status OutOfDate
         expected UpToDate
  FAILS  ignore_advisories: INTEL-SA-00615
         found    a platform open to INTEL-SA-00615
         expected a platform without it
  holds  security.attestation.mode: evidence of the TEE itself
  Nearest variant, attestation[0]:
  FAILS  mrenclave
         found    {B.hex()}
         expected {A.hex()}

The smallest change that admits it: 3 operations, all needed
  1. add to security.attestation.tolerate: outdated-tcb
     Wise for a time only: firmware or microcode is out of date and its flaws are known; tcb:
     {{grace: …}} in its place has a last day; update it, then take this out again (advisories:
     INTEL-SA-00615).
  2. add to security.attestation.ignore_advisories: INTEL-SA-00615
     Wise for a time only: INTEL-SA-00615: until the platform is updated; read what it says first.
  3. add to services[1].attestation[0].mrenclave:
     {B.hex()}
     Wise after a review only: a measurement is only as good as its origin: build the program
     yourself, or ask who did, and compare it; that it is what was started says nothing.

As a patch: what the changed parts of the session are to be
  security:
    attestation:
      tolerate:
      - outdated-tcb
      ignore_advisories:
      - INTEL-SA-00615
  services:
  - name: web
    attestation:
    - mrenclave:
      - '{A.hex()}'
      - '{B.hex()}'
"""
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"claims": None, "stage": "challenge"}, "Nothing is known of the program"),
        ({"claims": None, "stage": "token"}, "No change of the session is advised"),
        ({"claims": None, "stage": "later-than-we-know"}, "What failed: later-than-we-know"),
        ({"claims": None, "stage": "file"}, "rendering a file"),
        ({"times": 5}, "5 times until 2026-11-23T12:00:09.000Z"),
        ({"claims": with_(tcb_status="Revoked")}, "No change of this session admits the program"),
        ({"claims": with_(tcb_status="Revoked", debug=True)}, "beside what stands in the way it would need"),
        ({"claims": with_(debug=True)}, "debug, open to its host"),
        ({"claims": with_(debug=True, software=True)}, "a software platform, which protects nothing"),
        ({"claims": with_(debug=True)}, "holds  variant attestation[0], in all its factors"),
        ({"claims": with_(attestation_service=URL)}, f"vouched for by {URL}"),
        ({"claims": with_(conditions=frozenset({"service-td"}))}, "conditions: service-td"),
        (
            {"text": HEAD + ADMITTING + "security: {singleton_enclaves: true}\n"},
            "1. remove security.singleton_enclaves\n     Never wise",
        ),
    ],
)
def test_what_the_page_says(changes: dict[str, Any], words: str) -> None:
    assert words in page(denial(**changes))


def test_further_variants_are_told_in_short() -> None:
    variants = ", ".join(f"{{mrenclave: '{number:064x}'}}" for number in range(1, 5))
    text = HEAD + f"services:\n- name: web\n  attestation: [{variants}]\n"
    shown = page(denial(text=text))
    assert "Variant attestation[1] fails in: mrenclave" in shown
    assert "and 2 more variants" in shown


def test_a_bound_that_is_moved_is_set() -> None:
    signer = f"{{mrsigner: '{'05' * 32}', isvprodid: 7, isvsvn_min: 4}}"
    text = HEAD + f"services:\n- name: web\n  attestation: {{signer: {signer}}}\n"
    assert "1. set services[0].attestation[0].signer.isvsvn_min to 3\n     Never wise" in page(denial(text=text))


def test_lines_are_no_longer_than_a_terminal_is_wide_but_for_long_words() -> None:
    shown = page(denial(with_(tcb_status="OutOfDate", advisories=LONG, debug=True)))
    assert all(len(line) <= COLUMNS for line in shown.splitlines())


def test_colours_change_nothing_but_the_colour() -> None:
    plain, coloured = page(denial(with_(debug=True))), page(denial(with_(debug=True)), colours=True)
    assert "\x1b[31mNever wise\x1b[0m" in coloured
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_what_evidence_says_cannot_steer_a_terminal() -> None:
    shown = page(denial(with_(tcb_status="\x1b[2J\nFAKE", platform_id="x")))
    assert "\x1b" not in shown
    assert "\nFAKE" not in shown


@pytest.mark.parametrize(
    "document",
    [{}, {"id": "x"}, denial(report={}), denial(report=3), denial(advice={"patch": ""}), denial(times="x")],
)
def test_what_is_no_denial_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        page(document)


def test_the_list_has_a_line_each() -> None:
    one = {"id": "a", "time": "t", "service": "web", "stage": "token", "reason": "no\n"}
    assert summary((one, {})) == "a  t  web  token: no\\n\nNone  None  None  None: None\n"


class TestPatched:
    """`--patched`, on files of people."""

    @pytest.fixture
    def explained(self, scone: Scone, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        def show(text: str, document: dict[str, Any]) -> Any:
            monkeypatch.setattr(explain, "_asked", lambda *_: ({"denial": document}, document))
            scone.write("session.yml", text)
            return scone("explain", "0123456789abcdef", "--patched", "session.yml")

        return show

    @pytest.mark.parametrize(
        ("text", "claims", "says"),
        [
            ("name: other\n", with_(debug=True), "is not session 'shop'"),
            ("- a\n", with_(debug=True), "is not session 'shop'"),
            ("a: [\n", with_(debug=True), "no YAML that can be changed"),
            ("name: shop\n" + "#" * 1024 * 1024, with_(debug=True), "more than 1048576 bytes"),
            ("name: shop\n", with_(tcb_status="Revoked"), "no change of the session admits this program"),
            ("name: shop\n", None, "no change of the session admits this program"),
            ("name: shop\nsecurity: text\n", with_(debug=True), "leads nowhere"),
            # The library would write what it takes for a number, and the language for text, anew.
            (HEAD + ADMITTING + "  environment: {A: 1_0e1}\n", with_(debug=True), None),
        ],
    )
    def test_what_cannot_be_changed(
        self, explained: Callable[..., Any], text: str, claims: Claims | None, says: str | None
    ) -> None:
        shown = explained(text, denial(claims))
        if says is None:
            assert shown.code == 0 or "without changing more" in shown.err
            return
        assert shown.code == 1
        assert says in shown.err

    def test_a_template_is_changed_as_it_is(self, explained: Callable[..., Any]) -> None:
        text = HEAD.replace("shop", "$NAME") + ADMITTING + "  command: $COMMAND # of the day\n"
        shown = explained(text, denial(with_(debug=True)))
        assert shown.code == 0
        assert "  command: $COMMAND # of the day\n" in shown.out
        assert shown.out.endswith("security:\n  attestation:\n    tolerate:\n    - debug-mode\n")

    def test_no_other_service_is_widened_than_the_one_that_was_denied(self, explained: Callable[..., Any]) -> None:
        """The author has put a service before it since; the advice counts services as they were."""
        document = denial(with_(measurements={"mrenclave": B}))
        text = (HEAD + ADMITTING).replace("services:\n", "services:\n- name: newest\n", 1)
        shown = explained(text, document)
        assert (shown.code, shown.out) == (1, "")
        assert "session.yml: services[1] is 'first', expected 'web', which was denied" in shown.err
        assert "merge the patch that `ostiary explain` shows" in shown.err
        assert explained(HEAD.split("services:")[0], document).code == 1

    def test_a_change_that_is_there_already_is_not_made_twice(self, explained: Callable[..., Any]) -> None:
        program = bytes([12]) * 32
        document = denial(with_(measurements={"mrenclave": program}))
        once = explained(HEAD + ADMITTING, document)
        assert (once.code, once.err) == (0, "")
        assert once.out.count(program.hex()) == 1
        twice = explained(once.out, document)
        assert (twice.code, twice.out) == (0, once.out)
        assert "Warning: session.yml has this change already" in twice.err
