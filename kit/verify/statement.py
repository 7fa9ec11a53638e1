"""A signed statement about a verdict: in-toto Statement v1 in a DSSE envelope, ed25519.

It binds the run verdict to the sha256 of ``verdict.json`` and says who (which key) stands behind
it. https://in-toto.io/Statement/v1, https://github.com/secure-systems-lab/dsse

The predicate type is a name, not an address: ``.example`` (RFC 2606) belongs to nobody and nothing
is ever fetched from it. Whoever publishes the kit under a domain of their own puts it there.
"""

from __future__ import annotations

import base64
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from kit.errors import InvalidInput, Preflight
from kit.verify.verdict import Verdict

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://safety-repro-kit.example/verdict/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def statement(verdict: Verdict, document: bytes) -> bytes:
    """The statement about the bytes of ``verdict.json``."""
    predicate = {
        "experiment": verdict.experiment,
        "profile": verdict.profile,
        "version": verdict.version,
        "verdict": verdict.verdict,
        "modified": verdict.modified,
        "notRunHere": verdict.not_run_here,
        "kitVersion": verdict.kit_version,
        "expectation": {"sha256": verdict.expectation_sha256},
        "results": {"sha256": verdict.results_sha256},
        "claims": {claim.id: claim.outcome for claim in verdict.claims if claim.primary},
    }
    return msgspec.json.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": "verdict.json", "digest": {"sha256": sha256(document).hexdigest()}}
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        },
        order="sorted",
    )


def sign(payload: bytes, key: Path) -> bytes:
    """A DSSE envelope around the statement.

    Args:
        payload: The statement.
        key: PEM file with an ed25519 private key; made (mode 0600) when absent.

    Raises:
        Preflight: The package ``cryptography`` is missing.
        InvalidInput: The file is not such a key.
    """
    serialization, ed25519 = _library()
    private = _private_key(key, serialization, ed25519)
    public = private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    signature = private.sign(pre_authentication(payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": public.hex(), "sig": base64.b64encode(signature).decode()},
        ],
    }
    return msgspec.json.format(msgspec.json.encode(envelope), indent=1) + b"\n"


def check(envelope: bytes, document: bytes, where: str) -> dict[str, Any]:
    """The statement of an envelope whose signature and subject are right.

    Who owns the key named in ``keyid`` is for the reader to know.

    Raises:
        Preflight: The package ``cryptography`` is missing.
        InvalidInput: Not an envelope, a wrong signature, or another verdict.
    """
    _, ed25519 = _library()
    try:
        outer = msgspec.json.decode(envelope, type=dict[str, Any])
        payload = base64.b64decode(outer["payload"], validate=True)
        first = outer["signatures"][0]
        public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(first["keyid"]))
        signature = base64.b64decode(first["sig"], validate=True)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        raise InvalidInput(f"not a signed statement: {error}", where=where) from None
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, pre_authentication(payload))
    except InvalidSignature:
        raise InvalidInput("the signature is wrong", where=where) from None
    said = msgspec.json.decode(payload, type=dict[str, Any])
    if said["subject"][0]["digest"]["sha256"] != sha256(document).hexdigest():
        raise InvalidInput(
            "the statement is about another verdict",
            where=where,
            why="the results, the expectation or the kit's version have changed since",
        )
    return said


def key_id(envelope: bytes) -> str:
    """The key named in an envelope that :func:`check` accepted."""
    found = msgspec.json.decode(envelope, type=dict[str, Any])["signatures"][0]["keyid"]
    return str(found).lower()


def pre_authentication(payload: bytes) -> bytes:
    """What DSSE signs: type and payload with their lengths, so that neither can be shifted."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise Preflight(
            "the package 'cryptography' is not installed",
            where="--sign, --signature",
            why="signing is optional, and everything else works without it",
            next_step='pip install "safety-repro-kit[sign]"',
        ) from None
    return serialization, ed25519


def _private_key(path: Path, serialization: Any, ed25519: Any) -> Any:
    if path.is_file():
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"not a private key: {error}", where=str(path)) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise InvalidInput("not an ed25519 key", where=str(path))
        return key
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return key
