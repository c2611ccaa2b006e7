"""Services: commands, environment, attestation."""

from __future__ import annotations

import pytest
from tests.unit.session.texts import HEAD, A, B, mistake, mistakes, note, quiet, service, warning

from ostiary.session import HostArgument, HostVariable, Service, Signer, Template, Variant, parse_session

SIGNER = f"mrsigner: {A}, isvprodid: 6"


def only(text: str) -> Service:
    (found,) = parse_session(text).session.services
    return found


def words(text: str) -> tuple[str, ...]:
    return tuple(str(word) for word in only(text).command)


def attested(attestation: str) -> str:
    return f"{HEAD}services:\n- name: app\n  pwd: /\n  attestation: {attestation}\n"


def test_a_service_needs_a_well_formed_unique_name() -> None:
    assert mistake(service(name="a/b"), "services[0].name").startswith('found "a/b" with the character "/"')
    assert "empty name" in mistake(service(name='""'), "services[0].name")
    assert "513 characters" in mistake(service(name="a" * 513), "services[0].name")
    assert "name is missing" in mistake(service(name="~"), "services[0].name")
    twice = service() + f"- name: app\n  attestation: {{mrenclave: {B}}}\n"
    assert "line 4 has the same name" in mistake(twice, "services[1].name")


def test_a_text_command_is_cut_into_words_and_a_list_is_taken_as_it_is() -> None:
    assert words(service("""command: mysql -e "show databases;" 'a b'c""")) == (
        "mysql",
        "-e",
        "show databases;",
        "a bc",
    )
    assert words(service("command: [mysql, --port, 3306, -e, \"it's one argument\", '']")) == (
        "mysql",
        "--port",
        "3306",
        "-e",
        "it's one argument",
        "",
    )
    old = f'name: a\nversion: "0.2"\nservices: [{{name: s, mrenclaves: [{A}], command: \'a "b c"\'}}]'
    assert words(old) == ("a", '"b', 'c"')


@pytest.mark.parametrize(
    ("command", "path", "says"),
    [
        ("sh -c 'echo", "services[0].command", "the quote ' is not closed, at character 7"),
        ('""', "services[0].command", "the command is empty"),
        ('"  "', "services[0].command", "the command is empty"),
        ("[]", "services[0].command", "the command is empty"),
        ("{a: b}", "services[0].command", "found a mapping, expected text"),
        ("[a, ~]", "services[0].command[1]", "found nothing, expected text"),
        ("[a, [b]]", "services[0].command[1]", "found a list, expected text"),
        ("app @@1 @@1", "services[0].command", "is there twice"),
        ("app @@1 @@01", "services[0].command", "is there twice"),
        ("app @@0", "services[0].command", "count from @@1"),
        ("[app, '@@99999999999999999999']", "services[0].command[1]", "count from @@1"),
        ("app $$SCONE::pw$$", "services[0].command", "names a secret that is not in secrets"),
    ],
)
def test_wrong_commands_are_refused(command: str, path: str, says: str) -> None:
    assert says in mistake(service(f"command: {command}"), path)


def test_words_are_cut_before_secrets_are_put_in() -> None:
    text = service("command: app --pw=$$SCONE::pw$$ '$$SCONE::pw$$ x'") + "secrets: [{name: pw, kind: ascii}]"
    assert words(text) == ("app", "--pw=$$SCONE::pw$$", "$$SCONE::pw$$ x")


def test_host_arguments_are_whole_words() -> None:
    command = only(service("command: app @@1 x @@3")).command
    assert command[1] == HostArgument(position=1)
    assert command[3] == HostArgument(position=3)
    text = service("command: app --port=@@1")
    assert "inside a longer argument" in warning(text, "services[0].command")
    assert words(text) == ("app", "--port=@@1")


def test_host_arguments_and_variables_need_0_3_8() -> None:
    head = f'name: a\nversion: "0.3.7"\nservices: [{{name: s, mrenclaves: [{A}], '
    assert "needs version 0.3.8, found 0.3.7" in mistake(head + "command: app @@1}]", "services[0].command")
    assert "needs version 0.3.8" in mistake(
        head + r"environment: {\@\@HOME: ''}}]", "services[0].environment.\\@\\@HOME"
    )


def test_the_environment_is_text_and_its_order_means_nothing() -> None:
    text = service("environment:\n    B: 007\n    a: 'x y'\n    A: true\n    \\@\\@HOME: ignored\n    C: $$SCONE::$$")
    assert only(text).environment == (
        ("A", Template(parts=("true",))),
        ("B", Template(parts=("007",))),
        ("C", Template(parts=("$$SCONE::$$",))),
        ("HOME", HostVariable(name="HOME")),
        ("a", Template(parts=("x y",))),
    )


@pytest.mark.parametrize(
    ("environment", "path", "says"),
    [
        ("[A=b]", "environment", "environment is a mapping; write A: b"),
        ("A=b", "environment", "environment is a mapping; write A: b"),
        ("{A=B: c}", "environment.A=B", "has a ="),
        ("{'': c}", "environment.", "name of the variable is empty"),
        ("{A: [b]}", "environment.A", "found a list, expected text"),
        ("{A: {b: c}}", "environment.A", "found a mapping, expected text"),
        ("{'@@HOME': ''}", "environment.@@HOME", "the host's variable is written \\@\\@HOME"),
        ("{\\@\\@: x}", "environment.\\@\\@", "name of the variable is empty"),
        ("{A: 1, \\@\\@A: 2}", "environment.\\@\\@A", '"A" is also set by the session'),
        ("{A: 1, A: 2}", "environment.A", "the same key"),
    ],
)
def test_wrong_environments_are_refused(environment: str, path: str, says: str) -> None:
    assert says in mistake(service(f"environment: {environment}"), f"services[0].{path}")


def test_odd_variables_are_accepted_with_a_warning() -> None:
    empty = service("environment: {A: }")
    assert 'write ""' in warning(empty, "services[0].environment.A")
    assert only(empty).environment == (("A", Template(parts=())),)
    assert only(quiet(service("environment: {\\@\\@A: }")).text).environment == (("A", HostVariable(name="A")),)
    dropped = service("environment: {'': ''}")
    assert "is dropped" in warning(dropped, "services[0].environment.")
    assert only(dropped).environment == ()
    malformed = service("environment: {A: '$$SCONE:pw$$'}")
    assert "no placeholder" in warning(malformed, "services[0].environment.A")
    shell = service(r"environment: {A: '\$\$SCONE::pw$$'}")
    assert "backslashes" in warning(shell, "services[0].environment.A")


def test_the_working_directory_is_absolute_or_the_root() -> None:
    assert only(service("pwd: /srv//./app/")).pwd == "/srv/app"
    assert only(service("pwd: /")).pwd == "/"
    assert "starts in /" in note(service(), "services[0].pwd")
    assert only(service()).pwd is None
    assert "expected an absolute path" in mistake(service("pwd: app"), "services[0].pwd")
    assert "template variable not replaced?" in mistake(service("pwd: $HOME"), "services[0].pwd")
    assert "without .." in mistake(service("pwd: /a/../b"), "services[0].pwd")
    assert "control or invisible" in mistake(service('pwd: "/a\\nb"'), "services[0].pwd")
    assert "control or invisible" in mistake(service('pwd: ""'), "services[0].pwd")
    assert "over 4095 bytes" in mistake(service("pwd: /" + "a" * 4095), "services[0].pwd")


def test_a_missing_image_is_a_warning_and_persistency_says_none() -> None:
    assert "there is no such image" in warning(service("image_name: img:1.0"), "services[0].image_name")
    assert only(quiet(service("image_name: img:1.0") + "images: [{name: 'img:1.0'}]").text).image_name == "img:1.0"
    quiet(service("persistency: None"))
    assert "expected None" in mistake(service("persistency: Full"), "services[0].persistency")
    assert "control or invisible" in mistake(service('image_name: "a\\u202eb"'), "services[0].image_name")
    assert "513 characters" in mistake(service("image_name: " + "a" * 513), "services[0].image_name")


@pytest.mark.parametrize(
    ("attestation", "variants"),
    [
        (f"{{mrenclave: {A.upper()}}}", [Variant(mrenclave=(bytes.fromhex(A),))]),
        (f"{{mrenclave: [{A}, {B}]}}", [Variant(mrenclave=(bytes.fromhex(A), bytes.fromhex(B)))]),
        (
            f"[{{mrenclave: {B}, signer: {{{SIGNER}}}}}, {{signer: {{{SIGNER}, isvsvn_min: 2}}}}]",
            [
                Variant(mrenclave=(bytes.fromhex(B),), signer=Signer(mrsigner=bytes.fromhex(A), isvprodid=6)),
                Variant(signer=Signer(mrsigner=bytes.fromhex(A), isvprodid=6, isvsvn_min=2)),
            ],
        ),
        (
            f"{{signer: {{{SIGNER}, isvsvn: 4}}}}",
            [Variant(signer=Signer(mrsigner=bytes.fromhex(A), isvprodid=6, isvsvn_min=4, isvsvn_max=4))],
        ),
        (
            f"{{signer: {{{SIGNER}, isvsvn_min: 0, isvsvn_max: 65535}}}}",
            [Variant(signer=Signer(mrsigner=bytes.fromhex(A), isvprodid=6, isvsvn_min=0, isvsvn_max=65535))],
        ),
    ],
)
def test_attestation_is_one_variant_or_a_list(attestation: str, variants: list[Variant]) -> None:
    assert list(only(quiet(attested(attestation)).text).attestation) == variants


@pytest.mark.parametrize(
    ("attestation", "path", "says"),
    [
        ("[]", "", "the list of variants is empty"),
        ("{}", "", "a variant without factors would admit every program"),
        ("[{}]", "[0]", "a variant without factors would admit every program"),
        ("{mrenclave: ~}", "", "a variant without factors would admit every program"),
        ("{mrenclave: []}", ".mrenclave", "the list of measurements is empty"),
        (f"{{mrenclave: {A[:-2]}}}", ".mrenclave", "(62 characters), expected 64 hex digits"),
        (f"{{mrenclave: [{A}, 'x{A[1:]}']}}", ".mrenclave[1]", "expected 64 hex digits"),
        ("{mrenclave: [$MRENCLAVE]}", ".mrenclave[0]", "template variable not replaced?"),
        ("{mrenclave: [~]}", ".mrenclave[0]", "found nothing, expected text"),
        ("{mrenclave: [[x]]}", ".mrenclave[0]", "found a list, expected 64 hex digits"),
        ("{mrenclave: $$SCONE::m:hex$$}", ".mrenclave", "names a secret that is not in secrets"),
        ("$$SCONE::m$$", "", "names a secret that is not in secrets"),
        ("text", "", "expected a mapping with the keys of attestation variant"),
        (f"{{mrenclav: {A}}}", ".mrenclav", "did you mean mrenclave?"),
        (f"{{signer: {{mrsigner: {A}}}}}", ".signer.isvprodid", "isvprodid is missing"),
        ("{signer: {isvprodid: 1}}", ".signer.mrsigner", "mrsigner is missing"),
        (f"{{signer: {{mrsigner: [{A}], isvprodid: 1}}}}", ".signer.mrsigner", "found a list, expected 64 hex digits"),
        (f"{{signer: {{{SIGNER}, isvsvn: 4, isvsvn_min: 1}}}}", ".signer.isvsvn", "exclude each other"),
        (f"{{signer: {{{SIGNER}, isvsvn_min: 5, isvsvn_max: 4}}}}", ".signer.isvsvn_min", "above isvsvn_max, 4"),
        (f"{{signer: {{{SIGNER}, isvsvn_min: 65536}}}}", ".signer.isvsvn_min", "from 0 to 65535"),
        (f"{{signer: {{{SIGNER}, isvsvn_min: -1}}}}", ".signer.isvsvn_min", "from 0 to 65535"),
        (f"{{signer: {{mrsigner: {A}, isvprodid: '6'}}}}", ".signer.isvprodid", "expected a decimal number"),
        (
            f"{{signer: {{mrsigner: {A}, isvprodid: $$SCONE::p$$}}}}",
            ".signer.isvprodid",
            "names a secret that is not in secrets",
        ),
        ("{signer: []}", ".signer", "found a list, expected a mapping with the keys of signer"),
    ],
)
def test_wrong_attestations_are_refused(attestation: str, path: str, says: str) -> None:
    assert says in mistake(attested(attestation), f"services[0].attestation{path}")


def test_a_misspelt_factor_names_the_right_one() -> None:
    found = mistakes(attested(f"{{signer: {{mrsinger: {A}, isvprodid: 1}}}}"))
    assert [(finding.path.rpartition(".")[2], finding.message) for finding in found] == [
        ("mrsigner", "mrsigner is missing; write its 64 hex digits"),
        ("mrsinger", 'unknown key "mrsinger" in signer: did you mean mrsigner?'),
    ]


def test_a_service_must_say_whom_it_admits_unless_the_session_asks_for_no_evidence() -> None:
    text = f"{HEAD}services: [{{name: app}}]\n"
    assert "does not say which programs it admits" in mistake(text, "services[0]")
    unattested = text + "security: {attestation: {mode: none}}"
    assert "without evidence; for tests only" in warning(unattested, "security.attestation.mode")
    assert only(unattested).attestation == ()


def test_mrenclaves_is_the_old_form_of_one_variant() -> None:
    head = f"{HEAD}services:\n- name: app\n  mrenclaves: "
    text = f"{head}[{A}, {B}]\n"
    assert only(text).attestation == (Variant(mrenclave=(bytes.fromhex(A), bytes.fromhex(B))),)
    assert "deprecated" in note(text, "services[0].mrenclaves")
    assert "the list of measurements is empty" in mistake(f"{head}[]\n", "services[0].mrenclaves")
    assert "exclude each other" in mistake(service(f"mrenclaves: [{B}]"), "services[0].mrenclaves")
