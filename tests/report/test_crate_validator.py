"""The Process Run Crate under an independent reader: roc-validator, by SHACL shapes of the profile.

Not in the development extra, because it brings forty packages; ``pip install roc-validator`` into
the environment runs this test. It stays offline: the context comes from the rocrate library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.report.crate import export_crate
from kit.report.files import read_run
from tests.report.runs import write_run

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


@pytest.mark.filterwarnings("ignore")
def test_every_requirement_of_the_profile_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rocrate_validator")
    import rdflib.plugins.parsers.jsonld as parser
    import rdflib.plugins.shared.jsonld.context as contexts
    import rocrate
    from rocrate_validator import services
    from rocrate_validator.models import Severity, ValidationSettings
    from rocrate_validator.utils.http import HttpRequester

    bundled = Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld"
    text = bundled.read_text(encoding="utf-8")

    class Answer:
        status_code, ok, headers = 200, True, {"Content-Type": "application/ld+json"}
        content = text.encode()

        def json(self) -> Any:
            return json.loads(text)

        def raise_for_status(self) -> None: ...

    def get(_: Any, url: str, **__: Any) -> Answer:
        if url != CONTEXT:
            raise OSError(f"offline: {url}")
        return Answer()

    usual = contexts.source_to_json

    def source_to_json(source: Any, *rest: Any, **named: Any) -> Any:
        asked = source if isinstance(source, str) else getattr(source, "system_id", "")
        return (json.loads(text), None) if asked == CONTEXT else usual(source, *rest, **named)

    for module in (contexts, parser):
        monkeypatch.setattr(module, "source_to_json", source_to_json)
    for name in ("get", "head"):
        monkeypatch.setattr(HttpRequester, name, get, raising=False)
    folder = write_run(tmp_path / "run")
    crate = export_crate(read_run(folder), tmp_path / "out.zip", agent="A. Reader")
    settings = ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="process-run-crate",
        requirement_severity=Severity.REQUIRED,
    )
    issues = services.validate(settings).get_issues()
    assert [f"{issue.check.identifier}: {issue.message}" for issue in issues] == []
