"""What docs/session-language.md takes from the code: tables between `<!-- generated: NAME -->` and `<!-- end -->`, and
what the parser says of the examples that it does not simply accept. `scripts/language-tables` writes them anew.

Fences of examples: `yaml` is accepted in silence; `yaml refused` and `yaml warned` are followed by a `text` block that
holds the mistakes or warnings. An example without `name` is a part of a session.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary.broker.configure import MAX_ARGUMENTS_BYTES, MAX_FILE_BYTES, MAX_FILES_BYTES
from ostiary.broker.namespace import default_root
from ostiary.errors import SessionFormatError
from ostiary.secret.certificate import MAX_CHAIN_CERTIFICATES
from ostiary.secret.format import FORMS, Format
from ostiary.secret.generate import MAX_SLOW_KEYS
from ostiary.secret.value import BinaryValue
from ostiary.session import MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NODES, language, parse_session
from ostiary.session.command import MAX_ARGUMENTS
from ostiary.session.language import V0_1, V0_2, V0_3
from ostiary.session.name import MAX_NAME_CHARACTERS
from ostiary.session.policy_board import MAX_MEMBERS, MAX_URL_CHARACTERS, MAX_WEBHOOKS
from ostiary.session.secret import DEFAULT_SIZE, MAX_SIZE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "session-language.md"
REMEDY = "run scripts/language-tables and look at what it changed"

_HELLO = ROOT / "src" / "ostiary" / "demo" / "hello.session.yml"
_CERTIFICATES = {"x509": "`x509` and `x509-ca`"}
"""One row says the formats of both."""
_MEASUREMENT = "5c0ad8b1b1d5c2f4d0a1c1e3b3b0f9a7e2d4c6b8a0f1e3d5c7b9a1f2e4d6c8b0"

_REGION = re.compile(r"(?P<head><!-- generated: (?P<name>[a-z ]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
_FENCE = re.compile(r"^```(?P<label>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_JUDGED = re.compile(
    r"^(?P<head>```yaml (?P<label>refused|warned)\n(?P<text>.*?)^```\n\n```text\n).*?(?P<end>^```)$",
    re.DOTALL | re.MULTILINE,
)

_CONTAINERS: Mapping[str, tuple[str, int]] = {
    "session": ("the session", V0_1),
    "service": ("`services[]`", V0_1),
    "attestation variant": ("`services[].attestation`", language.KEYS["service"]["attestation"]),
    **{
        tee: (f"`{tee}` of a variant (Ostiary's own)", language.KEYS["attestation variant"][tee])
        for tee in language.TEES
    },
    "tpm pcrs": ("`pcrs` of `tpm`", language.KEYS["tpm"]["pcrs"]),
    "signer": ("`signer` of a variant", language.KEYS["attestation variant"]["signer"]),
    "image": ("`images[]`", V0_1),
    "injection file": ("`injection_files[]`", V0_1),
    "image volume": ("`volumes[]` of an image", V0_1),
    "volume": ("`volumes[]`", V0_1),
    "volume export": ("`export` of a volume, long form", language.KEYS["volume export"]["to"]),
    "volume export target": ("`to`, or `export` of a volume", V0_3),
    "volume import": ("`import` of a volume", V0_3),
    "export": ("`export` of a secret", V0_3),
    "import": ("`import` of a secret", V0_3),
    "import_akv": ("`import_akv`", language.SECRET_KEYS["import_akv"]),
    "secret_config": ("`secret_config`", language.KEYS["session"]["secret_config"]),
    "store_in": ("`store_in: !akv`", language.KEYS["session"]["secret_config"]),
    "validity": ("`validity` of a jwt", language.KINDS["jwt"]),
    "access_policy": ("`access_policy`", V0_1),
    "policy_board": ("`policy_board` (Ostiary's own)", language.KEYS["session"]["policy_board"]),
    "board member": ("`members[]` of `policy_board`", language.KEYS["session"]["policy_board"]),
    "creator": ("`creator` of a signed session", language.KEYS["creator"]["signer"]),
    "security": ("`security`", language.KEYS["session"]["security"]),
    "security.attestation": ("`security.attestation`", language.KEYS["security"]["attestation"]),
    "tcb": ("`tcb` (Ostiary's own)", language.KEYS["security.attestation"]["tcb"]),
}
"""Where the keys of a place of `language.KEYS` stand, and the level that the place itself needs."""

_VALUES: tuple[tuple[str, Mapping[str, int], int], ...] = (
    ("secret `kind`", language.KINDS, V0_1),
    ("`key_type`", language.KEY_TYPES, language.KIND_KEYS["private-key"]["key_type"]),
    ("`mode`", language.MODES, language.KEYS["security.attestation"]["mode"]),
    ("`tolerate`", language.TOLERATE, language.KEYS["security.attestation"]["tolerate"]),
    ("encoding", language.ENCODINGS, V0_1),
)
"""Words that came after the key that takes them."""

_FEATURES: tuple[tuple[int, str], ...] = (
    (language.REFERENCE_LEVEL, "mappings as references to other sessions"),
    (language.KEY_HASH_LEVEL, "key hashes as subjects, in place of certificate hashes"),
    (language.CERTIFICATE_LEVEL, "certificates as `value`"),
    (language.QUOTING_LEVEL, "quotes in a `command` text"),
    (language.NAMESPACE_LEVEL, "namespaces, `/` in names"),
    (language.SERVICE_KEY_VARIABLE_LEVEL, "a variable as `fspf_key` of a service"),
    (language.VOLUME_KEY_VARIABLE_LEVEL, "a variable as `fspf_key` of a volume"),
    (language.HOST_LEVEL, "host arguments and host variables"),
    (language.RELATIVE_LEVEL, "relative references"),
    (language.VARIABLE_LEVEL, "variables in `attestation`, `platforms`, `security`, `access_policy`, OTP secrets"),
    (language.GOVERNANCE_LEVEL, "`signer`, `require-all`, `require-at-least-N` as subjects"),
    (language.ROOT_LEVEL, "the root namespace `/`"),
)

_GIVES: Mapping[tuple[str, str], str] = {
    ("ascii", ""): "the text",
    ("aad-token", ""): "the token",
    ("jwt", ""): "the token, in compact form",
    ("config-fragment", ""): "its value, in configuration sections only",
    ("binary", ""): "the bytes as they are",
    ("binary", "hex"): "lower-case hex, `{}`",
    ("binary", "base64"): "with padding, `{}`",
    ("binary", "base64url"): "with padding, `{}`",
    ("binary", "base32"): "with padding, `{}`",
    ("binary", "base32nopad"): "without padding, `{}`",
    ("private-key", ""): "PKCS#8, PEM",
    ("private-key", "der"): "PKCS#8, DER",
    ("private-key", "pkcs8-v1:pem"): "PKCS#8, PEM; version 1 also of an Ed25519 key (not SCONE's)",
    ("private-key", "pkcs8-v1:der"): "that, DER",
    ("public-key", ""): "SubjectPublicKeyInfo, PEM",
    ("public-key", "spki:der"): "SubjectPublicKeyInfo, DER",
    ("x509", ""): "the certificate, PEM",
    ("x509", "crt:der"): "the certificate, DER",
    ("x509", "privatekey"): "its key, PKCS#8, PEM",
    ("x509", "privatekey:der"): "its key, PKCS#8, DER",
    ("x509", "privatekey:pkcs8-v1:pem"): "its key, PKCS#8, PEM; version 1 also of an Ed25519 key (not SCONE's)",
    ("x509", "privatekey:pkcs8-v1:der"): "that, DER",
    ("x509", "chain"): "the issuer first, the root last, **without** the certificate, PEM; empty if self-signed",
    ("x509", "pkcs12-with-private-key"): "PKCS#12 of certificate, key and chain; the password is empty",
    ("x509", ".chain"): "the root first, the certificate last, **included**, PEM",
    ("session-ca", ""): "the certificate of the session's own CA, PEM",
    ("pgp-key", "privatekey:asciiarmored"): "as `gpg --export-secret-keys --armor`",
    ("pgp-key", "privatekey:binary"): "as `gpg --export-secret-keys`",
    ("pgp-key", "privatekey:base64"): "base64 of that",
    ("pgp-key", "publickey:asciiarmored"): "as `gpg --export --armor`",
    ("pgp-key", "publickey:binary"): "as `gpg --export`",
    ("pgp-key", "publickey:base64"): "base64 of that",
}
"""What a format gives, by the kind and the first of the spellings that mean it; {} is what 0xdeadbeef becomes."""

_CHECKED_SESSION = """\
version: "0.3.10"
name: shop
services:
- name: web
  command: shop --listen 8443
  attestation:
    signer: {mrsinger: 5c0ad8b1, isvprodid: 1}
  environment:
    DB_PASSWORD: $$SCONE::db_pasword$$
secrets:
- name: db_password
  kind: ascii
  size: "32"
- name: token
  kind: jwt
"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A fenced block of the page. label: all that stands after the back ticks. line: of its first line of text."""

    label: str
    text: str
    line: int


def examples(page: str) -> tuple[Example, ...]:
    return tuple(
        Example(label=found["label"], text=found["text"], line=page.count("\n", 0, found.start("text")) + 1)
        for found in _FENCE.finditer(page)
    )


def whole(text: str) -> str:
    """An example as a session. What is added comes last, so that line numbers stay."""
    return text if re.search(r"^name:", text, re.MULTILINE) else f'{text}name: example\nversion: "0.3.12"\n'


def said_of(label: str, text: str) -> str:
    """What the parser says of an example, a line each. Raises ValueError if that is not what its label says."""
    try:
        warnings = parse_session(whole(text)).warnings
    except SessionFormatError as error:
        if label == "yaml refused":
            return "".join(f"{finding}\n" for finding in error.findings)
        raise ValueError(f"refused: {error}") from None
    if label == "yaml refused" or bool(warnings) != (label == "yaml warned"):
        raise ValueError(f"accepted, with these warnings: {warnings}")
    return "".join(f"{finding}\n" for finding in warnings)


def renewed(page: str) -> str:
    """The page with its tables and messages as the code has them. Raises ValueError, KeyError: an unknown table."""
    page = _REGION.sub(lambda found: f"{found['head']}{TABLES[found['name']]()}{found['end']}", page)
    return _JUDGED.sub(
        lambda found: f"{found['head']}{said_of('yaml ' + found['label'], found['text'])}{found['end']}", page
    )


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(word: str) -> str:
    return f"`{word}`"


def _since(level: int, above: int) -> str:
    """The version behind a word, if it came after what it belongs to."""
    return "" if level <= max(above, V0_2) else f" {language.spell(level)}"


def _words(words: Mapping[str, int], above: int) -> str:
    return ", ".join(f"{_code(word)}{_since(level, above)}" for word, level in words.items())


def _first_example() -> str:
    text = _HELLO.read_text()
    for name, value in {"MEASUREMENT": _MEASUREMENT, "COMMAND": "python3 /app/server.py", "PORT": "8443"}.items():
        text = text.replace(f"${name}", value)
    return f"```yaml\n{text}```\n"


def _root_namespace() -> str:
    return f"""\
```yaml
name: /
version: "{language.spell(_last_level())}"
predecessor: {default_root().hash.hex()}
access_policy:
  create_sessions: CREATOR
```
"""


def _versions() -> str:
    added: dict[int, list[str]] = {level: [] for level in range(_last_level() + 1)}
    for place, keys in language.KEYS.items():
        where, own = _CONTAINERS[place]
        _add(added, keys, own, f"of {where}")
    _add(added, language.SECRET_KEYS, V0_1, "of `secrets[]`")
    for kind, keys in language.KIND_KEYS.items():
        _add(added, keys, language.KINDS[kind], f"of {_code(kind)}")
    for what, values, own in _VALUES:
        _add(added, values, own, f"as {what}")
    for level, feature in _FEATURES:
        added[level].append(feature)
    for kind, formats in language.FORMATS.items():
        if kind == "x509-ca":
            continue
        named = {f":{form}": level for form, level in formats.items() if form}
        _add(added, named, language.KINDS[kind], f"of {_CERTIFICATES.get(kind, _code(kind))}")
    rows = ((_code(language.spell(level)), "; ".join(parts)) for level, parts in added.items() if parts)
    return _table(("version", "adds"), rows)


def _last_level() -> int:
    return max(language.LEVELS.values())


def _add(added: dict[int, list[str]], words: Mapping[str, int], above: int, where: str) -> None:
    """Words by level, those together that have the place in common. above: the level of the place."""
    for level, parts in added.items():
        new = [_code(word) for word, needed in words.items() if needed == level and needed > above]
        if new:
            parts.append(f"{' '.join(new)} {where}")


def _known_versions() -> str:
    plain = language.spell(language.LEVELS["0.3"])
    known = " ".join(_code(version) for version in language.LEVELS)
    return f"Known are {known}. Plain `0.3` has what `{plain}` has.\n"


def _keys() -> str:
    def rows() -> Iterator[tuple[str, str]]:
        for place, keys in language.KEYS.items():
            where, own = _CONTAINERS[place]
            yield where, _words(keys, own)
            if place == "image volume":
                yield "`secrets[]`", _words(language.SECRET_KEYS, V0_1)

    return _table(("place", "keys"), rows())


def _kinds() -> str:
    def rows() -> Iterator[tuple[str, str, str, str]]:
        for kind, level in language.KINDS.items():
            since = "0.2 only" if kind == "session-ca" else _since(level, V0_1).strip()
            may_be_given = "yes" if kind in language.KINDS_WITH_VALUE else ""
            yield _code(kind), since, _words(language.KIND_KEYS[kind], level), may_be_given

    return _table(("kind", "since", "keys of its own", "`value`"), rows())


def _formats() -> str:
    forms_by_kind = {forms.kind: forms for forms in FORMS.values()}

    def rows() -> Iterator[tuple[str, ...]]:
        for kind, forms in forms_by_kind.items():
            shown = _CERTIFICATES.get(kind, _code(kind))
            for same in _same_formats(forms.formats):
                gives = _GIVES[kind, same[0]]
                if "{}" in gives:
                    gives = gives.format(forms.formats[same[0]].encode(BinaryValue(data=b"\xde\xad\xbe\xef")).decode())
                old = [f".{form}" for form, how in forms.dot_forms.items() if how is forms.formats[same[0]]]
                what = "bytes" if same[0] in language.RAW_FORMATS.get(kind, ()) else "text"
                yield shown, ", ".join(_spelt(kind, form) for form in same), " ".join(map(_code, old)), what, gives
            for form, how in forms.dot_forms.items():
                if how not in forms.formats.values():
                    yield shown, "", _code(f".{form}"), "text", _GIVES[kind, f".{form}"]

    return _table(("kind", "format", "old form", "is", "namely"), rows())


def _spelt(kind: str, form: str) -> str:
    if not form:
        return "none"
    return f"{_code(':' + form)}{_since(language.FORMATS[kind][form], language.KINDS[kind])}"


def _same_formats(formats: Mapping[str, Format[Any]]) -> list[list[str]]:
    """The spellings, those together that mean the same."""
    same: dict[int, list[str]] = {}
    for form, how in formats.items():
        same.setdefault(id(how), []).append(form)
    return list(same.values())


def _tolerations() -> str:
    own = language.KEYS["security.attestation"]["tolerate"]
    return f"Known are {_words(language.TOLERATE, own)}.\n"


def _limits() -> str:
    limits = {
        "a session text, also in normal form": f"{MAX_DOCUMENT_BYTES} bytes",
        "nesting": f"{MAX_DEPTH} levels",
        "mappings, lists, keys and values together, aliases expanded": str(MAX_NODES),
        "a name": f"{MAX_NAME_CHARACTERS} characters",
        "arguments of a command": str(MAX_ARGUMENTS),
        "`size`": f"1 to {MAX_SIZE}, {DEFAULT_SIZE} if not given",
        "RSA or given private keys in a session": str(MAX_SLOW_KEYS),
        "certificates above a certificate": str(MAX_CHAIN_CERTIFICATES),
        "members, webhooks of a policy board": f"{MAX_MEMBERS}, {MAX_WEBHOOKS} of {MAX_URL_CHARACTERS} characters",
        "arguments and environment of a start, together": f"{MAX_ARGUMENTS_BYTES} bytes",
        "an injection file, all of a start": f"{MAX_FILE_BYTES} bytes, {MAX_FILES_BYTES} bytes",
    }
    return _table(("what", "at most"), iter(limits.items()))


def _check_output() -> str:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "shop.yml").write_text(_CHECKED_SESSION)
        done = subprocess.run(
            [sys.executable, "-c", "from ostiary.entry import main; main()", "session", "check", "shop.yml"],
            cwd=directory,
            env={"HOME": directory, "PYTHONPATH": ":".join(str(Path(part).resolve()) for part in sys.path)},
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
    if done.returncode != 1:
        raise ValueError(f"session check ended with {done.returncode}: {done.stderr}")
    return f"`shop.yml`:\n\n```\n{_CHECKED_SESSION}```\n\n```text\n$ ostiary session check shop.yml\n{done.stderr}```\n"


TABLES: Mapping[str, Callable[[], str]] = {
    "first example": _first_example,
    "root namespace": _root_namespace,
    "known versions": _known_versions,
    "versions": _versions,
    "keys": _keys,
    "kinds": _kinds,
    "formats": _formats,
    "tolerations": _tolerations,
    "limits": _limits,
    "check output": _check_output,
}

if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
