"""Proposals in the OpenAPI document."""

from __future__ import annotations

from ostiary.board.count import Choice
from ostiary.board.decision import MAX_REASON_CHARS
from ostiary.board.proposal import MAX_NOTE_CHARS, State
from ostiary.board.risk import RiskKind
from ostiary.broker.proposal_records import MAX_OF_SESSION
from ostiary.broker.read_proposal import MAX_WAIT_SECONDS
from ostiary.server.answers import JsonValue
from ostiary.server.limits import MAX_BODY_BYTES, MAX_SIGNED_BODY_BYTES
from ostiary.server.openapi_parts import errors, json_answer, json_body, parameter
from ostiary.server.proposal_api import MAX_ASKED_WAIT_SECONDS

_HEX: dict[str, JsonValue] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_HEX_OR_NULL: dict[str, JsonValue] = {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}
_TIME: dict[str, JsonValue] = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: dict[str, JsonValue] = {"type": ["string", "null"], "format": "date-time"}
_STATE: JsonValue = {"enum": [state.value for state in State]}
_CHOICE: JsonValue = {"enum": [choice.value for choice in Choice]}

_SUMMARY: dict[str, JsonValue] = {
    "proposal": {**_HEX, "description": "the id: the hash of all facts, as docs/governance.md writes them"},
    "session": {"type": "string"},
    "state": _STATE,
    "hash": {**_HEX, "description": "session hash of the proposed version"},
    "predecessor": {**_HEX_OR_NULL, "description": "hash of the version that it replaces; null: it is the first"},
    "break_glass": {"type": "boolean"},
    "note": {"type": "string", "maxLength": MAX_NOTE_CHARS},
    "created": _TIME,
    "expires": {**_TIME, "description": "undecided until then it expires; approved: not applied until then"},
    "proposer": {**_HEX_OR_NULL, "description": "SHA-256 of the SubjectPublicKeyInfo of the TLS client"},
    "approvals": {"type": "integer"},
    "needed": {"type": "integer", "description": "approvals; of several boards the one that lacks most"},
    "apply_after": {**_TIME_OR_NULL, "description": "end of the time lock"},
}

PROPOSAL_SCHEMAS: dict[str, JsonValue] = {
    "NewProposal": {
        "type": "object",
        "required": ["session"],
        "additionalProperties": False,
        "properties": {
            "session": {"type": "string", "description": "one session in YAML"},
            "note": {"type": "string", "maxLength": MAX_NOTE_CHARS, "default": ""},
            "break_glass": {"type": "boolean", "default": False},
        },
    },
    "Proposed": {
        "type": "object",
        "required": ["proposal", "state", "hash", "expires", "warnings"],
        "additionalProperties": False,
        "properties": {
            "proposal": _HEX,
            "state": _STATE,
            "hash": _HEX,
            "expires": _TIME,
            "warnings": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        },
    },
    "ProposalSummary": {"type": "object", "required": list(_SUMMARY), "properties": _SUMMARY},
    "Proposals": {
        "type": "object",
        "required": ["proposals", "cursor"],
        "additionalProperties": False,
        "properties": {
            "proposals": {"type": "array", "items": {"$ref": "#/components/schemas/ProposalSummary"}},
            "cursor": {"type": "string", "description": "it changes whenever the list does"},
        },
    },
    "Proposal": {
        "type": "object",
        "required": [
            *_SUMMARY,
            *("cas", "nonce", "session_text", "before_text", "differences", "risks", "members"),
        ],
        "properties": {
            **_SUMMARY,
            "cas": {**_HEX, "description": "SHA-256 of the SubjectPublicKeyInfo of this service's root certificate"},
            "nonce": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "session_text": {"type": "string", "description": "the proposed version in normal form, YAML"},
            "before_text": {"type": ["string", "null"], "description": "the version that it replaces"},
            "differences": {
                "type": "array",
                "description": "what the change means, the worst first; a first version beside one that gives nothing",
                "items": {
                    "type": "object",
                    "required": ["effect", "path", "meaning"],
                    "properties": {
                        "effect": {"enum": ["wider", "changed", "narrower"]},
                        "path": {"type": "string"},
                        "meaning": {"type": "string"},
                    },
                },
            },
            "risks": {
                "type": "array",
                "description": "what to look at first, the worst first",
                "items": {
                    "type": "object",
                    "required": ["kind", "sentence"],
                    "properties": {
                        "kind": {"enum": [kind.value for kind in RiskKind]},
                        "sentence": {"type": "string"},
                    },
                },
            },
            "members": {"type": "array", "items": {"$ref": "#/components/schemas/BoardMember"}},
        },
    },
    "BoardMember": {
        "type": "object",
        "required": ["board", "name", "key", "power", "decision"],
        "properties": {
            "board": {"enum": ["current", "namespace", "own"], "description": "which board asks this member"},
            "name": {"type": "string"},
            "key": {**_HEX_OR_NULL, "description": "SHA-256 of its SubjectPublicKeyInfo; null: it is not known"},
            "power": {"type": "array", "items": {"enum": ["vote", "approve", "reject"]}},
            "decision": {
                "type": ["object", "null"],
                "required": ["choice", "reason", "at", "signature"],
                "properties": {
                    "choice": _CHOICE,
                    "reason": {"type": "string"},
                    "at": _TIME,
                    "signature": {"type": "string", "contentEncoding": "base64"},
                },
            },
        },
    },
    "NewDecision": {
        "type": "object",
        "required": ["signer", "decision", "signature"],
        "additionalProperties": False,
        "properties": {
            "signer": {
                "type": "string",
                "description": "SubjectPublicKeyInfo in PEM, Ed25519, P-384 or P-256; or base58check, version 10",
            },
            "decision": _CHOICE,
            "reason": {"type": "string", "maxLength": MAX_REASON_CHARS, "default": ""},
            "signature": {
                "type": "string",
                "contentEncoding": "base64",
                "description": (
                    "over the message that docs/governance.md writes down: Ed25519, or ECDSA in DER with SHA-384 "
                    "(P-384) or SHA-256 (P-256)"
                ),
            },
        },
    },
    "Decided": {
        "type": "object",
        "required": ["state", "approvals", "needed", "apply_after"],
        "additionalProperties": False,
        "properties": {
            "state": _STATE,
            "approvals": {"type": "integer"},
            "needed": {"type": "integer"},
            "apply_after": {**_TIME_OR_NULL, "description": "end of the time lock"},
        },
    },
}


def proposal_paths() -> dict[str, JsonValue]:
    return {
        "/v1/proposals": {"post": _propose(), "get": _list()},
        "/v1/proposals/{proposal}": {"get": _read()},
        "/v1/proposals/{proposal}/decisions": {"post": _decide()},
    }


def _propose() -> JsonValue:
    return {
        "operationId": "propose",
        "summary": "Put a version of a session before the policy boards that decide about it",
        "requestBody": json_body("NewProposal", MAX_SIGNED_BODY_BYTES),
        "responses": {
            "201": json_answer("it waits for decisions", "Proposed"),
            **errors(
                {
                    "400": "not of this form, no valid session, or no policy board decides about it",
                    "401": "a client certificate is needed",
                    "403": "neither a reader of the session nor a member, or the board cannot decide",
                    "404": "`predecessor` is given and the session does not exist, or its namespace does not",
                    "409": "`predecessor` is not the current hash, or too many proposals wait",
                    "413": "over a bound",
                }
            ),
        },
    }


def _list() -> JsonValue:
    return {
        "operationId": "listProposals",
        "summary": "Proposals that the caller may see; those of others are left out",
        "parameters": [
            parameter("session", "query", "session name; a leading `/` is dropped", required=False),
            parameter(
                "waiting-for",
                "query",
                "`me`, or SHA-256 of a member's SubjectPublicKeyInfo in hex: those that this key has not decided",
                required=False,
            ),
            parameter(
                "state",
                "query",
                f"`open` (default): open and approved ones; `all`: of one session also the closed ones of the last "
                f"{MAX_OF_SESSION}",
                required=False,
            ),
            parameter("after", "query", "the cursor of the list that the caller has", required=False),
            parameter(
                "wait",
                "query",
                f"seconds, at most {MAX_ASKED_WAIT_SECONDS}, of which {MAX_WAIT_SECONDS:g} are waited: as long as the "
                "list is the one of `after`, the answer waits for a change",
                required=False,
            ),
        ],
        "responses": {
            "200": json_answer("the whole list, always", "Proposals"),
            **errors(
                {
                    "400": "an unknown parameter, one of another form, or state=all without session",
                    "401": "waiting-for=me needs a client certificate",
                }
            ),
        },
    }


def _read() -> JsonValue:
    return {
        "operationId": "readProposal",
        "summary": "A proposal with all that whoever decides must see",
        "parameters": [parameter("proposal", "path", "its id", required=True)],
        "responses": {
            "200": json_answer("the proposal", "Proposal"),
            **errors({"404": "no such proposal, or not for this caller"}),
        },
    }


def _decide() -> JsonValue:
    return {
        "operationId": "decide",
        "summary": (
            "Approve, reject or withdraw, by a signature, which is all that counts: no client certificate is needed. "
            "The deciding approval applies the version at once, unless the board has a time lock"
        ),
        "parameters": [parameter("proposal", "path", "its id", required=True)],
        "requestBody": json_body("NewDecision", MAX_BODY_BYTES),
        "responses": {
            "200": json_answer("counted; the same decision again changes nothing", "Decided"),
            **errors(
                {
                    "400": "not of this form, or the signature does not hold over this proposal",
                    "403": "the key is of no member, or the version cannot be applied, and the decision is not counted",
                    "404": "no such proposal",
                    "409": "closed, or the member decided more cautiously before",
                    "413": "over a bound",
                }
            ),
        },
    }
