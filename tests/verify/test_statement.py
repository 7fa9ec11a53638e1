"""Signed statements about a verdict."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.cli.main import run as kit
from kit.errors import InvalidInput
from kit.verify.statement import PREDICATE_TYPE, check, pre_authentication, statement
from kit.verify.verdict import Verdict
from tests.verify.conftest import cells_of, write_run

DOCUMENT = b"{}"


def made() -> Verdict:
    return Verdict(experiment="made", profile="mini", version="1-A", verdict="REPRODUCED",
                   exit_code=0, cells=[], claims=[])  # fmt: skip


def test_the_statement_binds_the_bytes_of_the_verdict() -> None:
    said = json.loads(statement(made(), DOCUMENT))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == PREDICATE_TYPE
    assert said["subject"][0]["digest"]["sha256"].startswith("44136fa355b3678a")
    assert said["predicate"]["verdict"] == "REPRODUCED"


def test_pre_authentication_encoding() -> None:
    assert pre_authentication(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


def test_without_the_package_the_message_says_what_to_type(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert kit(["verify", str(run_dir), "--sign", str(run_dir / "s.json")]) == 4
    assert 'pip install "safety-repro-kit[sign]"' in capsys.readouterr().err
    assert not (run_dir / "s.json").exists()
    assert (run_dir / "verdict.json").exists()


def test_sign_and_check(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    target, key = tmp_path / "s.json", tmp_path / "keys" / "k.pem"
    arguments = ["verify", str(run_dir), "--sign", str(target), "--key", str(key)]
    assert kit(arguments) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    document = (run_dir / "verdict.json").read_bytes()
    assert check(target.read_bytes(), document, "s")["predicate"]["verdict"] == "REPRODUCED"
    first = json.loads(target.read_bytes())
    assert kit(arguments) == 0  # the same key signs again
    assert (
        json.loads(target.read_bytes())["signatures"][0]["keyid"]
        == (first["signatures"][0]["keyid"])
    )
    with pytest.raises(InvalidInput, match="another verdict"):
        check(target.read_bytes(), document + b" ", "s")
    for spoil, says in ((_payload, "signature is wrong"), (_key, "signed statement|is wrong")):
        with pytest.raises(InvalidInput, match=says):
            check(spoil(target.read_bytes()), document, "s")
    with pytest.raises(InvalidInput, match="not a signed statement"):
        check(b"{}", document, "s")


def _payload(envelope: bytes) -> bytes:
    outer: dict[str, Any] = json.loads(envelope)
    said = base64.b64decode(outer["payload"]).replace(b"REPRODUCED", b"reproduced")
    return json.dumps(outer | {"payload": base64.b64encode(said).decode()}).encode()


def _key(envelope: bytes) -> bytes:
    outer: dict[str, Any] = json.loads(envelope)
    outer["signatures"][0]["keyid"] = "00" * 32
    return json.dumps(outer).encode()


def test_a_file_that_is_no_key(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    (tmp_path / "k.pem").write_text("no key")
    arguments = ["--sign", str(tmp_path / "s.json"), "--key", str(tmp_path / "k.pem")]
    assert kit(["verify", str(run_dir), *arguments]) == 4


def test_a_signature_is_checked_by_verifying_again(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    target = tmp_path / "s.json"
    assert kit(["verify", str(run_dir), "--sign", str(target), "--key", str(tmp_path / "k")]) == 0
    key = json.loads(target.read_bytes())["signatures"][0]["keyid"]
    capsys.readouterr()
    asked = ["verify", str(run_dir), "--signature", str(target)]
    assert kit(asked) == 0
    assert f"signature right: key {key}" in " ".join(capsys.readouterr().out.split())
    assert kit([*asked, "--signer", key.upper()]) == 0
    assert kit([*asked, "--signer", "00" * 32]) == 4
    before = (run_dir / "verdict.json").read_bytes()
    write_run(run_dir, cells_of(108, 9))
    capsys.readouterr()
    assert kit(asked) == 4
    assert "the statement is about another verdict" in capsys.readouterr().err
    assert (run_dir / "verdict.json").read_bytes() == before
    target.write_bytes(_payload(target.read_bytes()))
    assert kit(asked) == 4
    assert kit(["verify", str(run_dir), "--signature", str(tmp_path / "none")]) == 4
