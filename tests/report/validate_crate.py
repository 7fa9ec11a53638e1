"""Prints what roc-validator misses in a crate: SHACL shapes of RO-Crate 1.3 and of the run profile.

A program of its own, because the validator lives in the environment of `make test-exports`. It
stays offline: the context comes from the rocrate library beside it. The validator's shapes of the
Process Run Crate are those of 0.5, whose requirements 0.6 kept; what 0.5 inherits from RO-Crate 1.1
is left out, for the crate is one of 1.3.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CONTEXT = "https://w3id.org/ro/crate/1.3/context"


def offline() -> None:
    """Answer for the context from the library's file, and for nothing else."""
    import rdflib.plugins.parsers.jsonld as parser
    import rdflib.plugins.shared.jsonld.context as contexts
    import rocrate
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
        module.source_to_json = source_to_json
    for name in ("get", "head"):
        setattr(HttpRequester, name, get)


def main(crate: str) -> None:
    """Print the issues as a list of sentences."""
    from rocrate_validator import services
    from rocrate_validator.models import Severity, ValidationSettings

    offline()
    issues = []
    for profile, inherit in (("ro-crate-1.3", True), ("process-run-crate", False)):
        settings = ValidationSettings(
            rocrate_uri=crate,
            profile_identifier=profile,
            enable_profile_inheritance=inherit,
            requirement_severity=Severity.REQUIRED,
        )
        result = services.validate(settings)
        issues += [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues()]
        issues += [] if result.executed_checks else [f"{profile}: nothing was checked"]
    sys.stdout.write("\n" + json.dumps(issues) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
