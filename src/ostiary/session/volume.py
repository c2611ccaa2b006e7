"""The volumes of a session: nodes to `Volume` and `ImportedVolume`, and their normal form.

Source: session language, section 10.
"""

from __future__ import annotations

from ostiary.session import language
from ostiary.session.findings import quote
from ostiary.session.model import ImportedVolume, Variable, Volume, VolumeExport
from ostiary.session.name import read_segment
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.reading import Fields, Reading
from ostiary.session.reference import Reference, read_reference
from ostiary.session.variable import read_key_variable

KEY_BYTES = 32
TAG_BYTES = 16
DEFAULT_UPDATE_POLICY = "rollback_protected"

_EXCLUDED_BY_IMPORT = ("fspf_key", "fspf_tag", "files", "export")
_ELSEWHERE = frozenset({"namespace", "cas_url", "cas_key", "cas_software_key"})


def read_volume(reading: Reading, node: Node) -> tuple[Volume | ImportedVolume, JsonObject]:
    """One volume. Its name is not held against the others here."""
    fields = reading.fields(node, "volume")
    name_node = fields.require("name", "give the volume a name")
    name = "" if name_node is None else read_segment(reading, name_node)
    imported = fields.get("import")
    if imported is not None:
        return _read_imported(reading, fields, imported, name)
    key, tag = fields.get("fspf_key"), fields.get("fspf_tag")
    if (key is None) != (tag is None):
        reading.findings.error(
            fields.node,
            "fspf_key and fspf_tag belong together; give both, or none for a volume that is made at first use",
        )
    files_node = fields.get("files")
    files = "encrypted" if files_node is None else reading.choice(files_node, language.VOLUME_FILES, "files")
    exports, export_forms = _read_exports(reading, fields.get("export"), name)
    key_value, key_form = (
        (None, None) if key is None else read_key(reading, key, level=language.VOLUME_KEY_VARIABLE_LEVEL)
    )
    tag_value = None if tag is None else reading.digest(tag, size=TAG_BYTES)
    volume = Volume(name=name, fspf_key=key_value, fspf_tag=tag_value, files=files, exports=exports)
    return volume, present(
        name=name,
        export=export_forms,
        fspf_key=key_form,
        fspf_tag=None if tag_value is None else tag_value.hex(),
        files=None if files == "encrypted" else files,
    )


def read_key(reading: Reading, node: Node, *, level: int) -> tuple[bytes | Variable, str]:
    """The key of a protected file system, and its normal form. level: that a variable needs."""
    variable = read_key_variable(reading, node, level=level)
    if variable is not None:
        return variable, str(variable.placeholder)
    key = reading.digest(node, size=KEY_BYTES, secret=True)
    return key, key.hex()


def _read_imported(reading: Reading, fields: Fields, node: Node, name: str) -> tuple[ImportedVolume, JsonObject]:
    for key in _EXCLUDED_BY_IMPORT:
        other = fields.get(key)
        if other is not None:
            reading.findings.error(other, f"{key} is for volumes of this session, and this one is imported; remove it")
    found = _read_local(reading, node, "volume import", item="volume") or Reference()
    volume = ImportedVolume(
        name=name, session=found.session or "", volume=found.item or name, session_hash=found.session_hash
    )
    return volume, present(**{"name": name, "import": found.form})


def _read_exports(reading: Reading, node: Node | None, name: str) -> tuple[tuple[VolumeExport, ...], list[JsonValue]]:
    exports: list[VolumeExport] = []
    forms: list[JsonValue] = []
    visible: set[tuple[str, str]] = set()
    for element in () if node is None else reading.elements(node):
        read = _read_export(reading, element)
        if read is None:
            continue
        export, form = read
        seen_as = (export.session, export.volume_alias or name)
        if seen_as in visible:
            reading.findings.error(
                element,
                f"the volume goes to {quote(seen_as[0])} as {quote(seen_as[1])} already; keep one of the entries",
            )
        visible.add(seen_as)
        exports.append(export)
        forms.append(form)
    return tuple(exports), forms


def _read_export(reading: Reading, node: Node) -> tuple[VolumeExport, JsonValue] | None:
    if not isinstance(node, MappingNode) or "to" not in node.values:
        if isinstance(node, MappingNode) and node.values.keys() & {"update_policy", "volume_alias"}:
            reading.findings.error(
                node, "update_policy and volume_alias need the target under to:; write to: {session: …}"
            )
            return None
        found = _read_local(reading, node, "volume export target")
        if found is None:
            return None
        return VolumeExport(session=found.session or "", session_hash=found.session_hash), found.form
    fields = reading.fields(node, "volume export")
    target = fields.require("to", "write to: {session: …}")
    found = None if target is None else _read_local(reading, target, "volume export target")
    policy_node, alias_node = fields.get("update_policy"), fields.get("volume_alias")
    policy = (
        DEFAULT_UPDATE_POLICY
        if policy_node is None
        else reading.choice(policy_node, language.UPDATE_POLICIES, "update_policy")
    )
    alias = None if alias_node is None else read_segment(reading, alias_node)
    if found is None:
        return None
    export = VolumeExport(
        session=found.session or "", session_hash=found.session_hash, update_policy=policy, volume_alias=alias
    )
    if policy == DEFAULT_UPDATE_POLICY and alias is None:
        return export, found.form
    form = present(to=found.form, update_policy=None if policy == DEFAULT_UPDATE_POLICY else policy, volume_alias=alias)
    return export, form


def _read_local(reading: Reading, node: Node, place: str, *, item: str | None = None) -> Reference | None:
    """A reference to one session of this CAS."""
    elsewhere = isinstance(node, MappingNode) and bool(node.values.keys() & _ELSEWHERE)
    if elsewhere or (isinstance(node, Scalar) and "=" in node.text and not node.text.startswith("/")):
        reading.findings.error(node, "volumes are shared with sessions of this CAS, one by one; name a session")
        return None
    return read_reference(reading, node, place, item=item)
