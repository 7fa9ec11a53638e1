"""Which code a step kind's digest is about."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kit.engine import code
from kit.engine.code import absent, changed, code_digest
from kit.engine.registry import NoParams, Registry, StepKind, load_registry
from kit.engine.store import StoredStep
from kit.steps import common

STEPS = """
from my_stale.helper import used

def run(context, params):
    from . import method
    from .sub import deep
    return used(method, deep)

def other(context, params):
    from my_stale import unrelated
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one's own with a step function."""
    folder = tmp_path / "my_stale"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "steps.py").write_text(STEPS)
    (folder / "helper.py").write_text("def used(*parts): return parts\n")
    (folder / "method.py").write_text("RATE = 0.1\n")
    (folder / "sub" / "__init__.py").write_text("from .deep import deep\n")
    (folder / "sub" / "deep.py").write_text("deep = 1\n")
    (folder / "unrelated.py").write_text("import torch_is_not_imported_here\n")
    (folder / "alone.py").write_text("NOBODY = 'reads this'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_stale", raising=False)
    return folder


@pytest.fixture(autouse=True)
def _kits_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kinds of the kit, not the toys of these tests."""
    monkeypatch.setenv("KIT_STEPS_MODULES", "kit.steps")


def digest(science: tuple[str, ...] = ()) -> str:
    """Of ``my_stale.steps.run``, as another process would see it."""
    for part in vars(code).values():
        getattr(part, "cache_clear", lambda: None)()
    return code._digest("my_stale.steps", "run", science)


@pytest.mark.parametrize(
    "name", ["__init__.py", "helper.py", "method.py", "sub/__init__.py", "sub/deep.py"]
)
def test_what_the_function_reaches_counts(package: Path, name: str) -> None:
    before = digest()
    file = package / name
    file.write_text(file.read_text() + "CHANGED = True\n")
    assert digest() != before
    assert "my_stale" not in sys.modules


def test_of_its_own_module_only_what_it_uses(package: Path) -> None:
    before = digest()
    steps = package / "steps.py"
    steps.write_text(STEPS.replace("import unrelated", "import unrelated as quite"))
    assert digest() == before
    steps.write_text(STEPS.replace("used(method, deep)", "used(deep, method)"))
    assert digest() != before


def test_what_it_does_not_reach_does_not_count(package: Path) -> None:
    before = digest()
    (package / "alone.py").write_text("NOBODY = 'cares'\n")
    assert digest() == before
    declared = digest(("my_stale.alone",))
    (package / "alone.py").write_text("NOBODY = 'sees'\n")
    assert digest(("my_stale.alone",)) != declared
    with pytest.raises(ValueError, match=r"there is no module 'my_stale\.gone'"):
        digest(("my_stale.gone",))


def reached(name: str) -> set[str]:
    """Names of what a kind of the kit reaches."""
    kind = load_registry().get(name)
    reach = code._Reach("kit")
    reach.definition(kind.run.__module__, kind.run.__qualname__)
    return set(reach.parts)


def test_of_the_wiring_only_what_a_function_uses() -> None:
    train = reached("tar/train")
    assert {"kit.methods.tar.outer_loop", "kit.train.single_process"} <= train
    assert "kit.steps.tar.kinds:run_train" in train
    assert "kit.steps.tar.params:Train" in train
    assert "kit.steps.tar.kinds:run_safeguard" not in train
    assert not [part for part in train if "defensive_tokens" in part or "engine.store" in part]
    evaluate = reached("defensive-tokens/evaluate")
    assert "kit.methods.defensive_tokens.attacks" in evaluate
    assert "kit.steps.common" in evaluate  # imported as a whole
    assert not [part for part in evaluate if part.startswith(("kit.methods.tar", "kit.engine"))]


def test_every_kind_of_the_kit_reaches_its_method() -> None:
    registry = load_registry()
    kinds = [name for name in registry.names() if registry.get(name).run.__module__[:4] == "kit."]
    assert len(kinds) > 25
    without = [name for name in kinds if not any(":" not in part for part in reached(name))]
    assert without == []


def test_formats_that_are_imported_by_name_are_declared() -> None:
    kind = load_registry().get("defensive-tokens/self-label")
    assert kind.science({"any": "parameters"}) == common.FORMATS
    params = {"max_new_tokens": 1, "empty_data": "no-turn"}
    assert code_digest(kind, params) == code_digest(kind, params | {"scope": "all"})


def test_functions_that_parameters_name_are_part_of_the_code() -> None:
    kind = load_registry().get("defensive-tokens/evaluate")
    params = {
        "layout": "before-bos", "attacks": ["ignore"], "max_new_tokens": 1, "seed": 1,
        "accuracy": False, "refusal_rule": "as-reported",
    }  # fmt: skip
    with_text = params | {"defences": ["quoted=<{data}>"]}
    assert code_digest(kind, params) == code_digest(kind, with_text)
    own = params | {"defences": ["own=tests.engine.toy:make"]}
    assert code_digest(kind, own) != code_digest(kind, params)
    with pytest.raises(ValueError, match=r"no module 'tests\.engine\.gone'"):
        code_digest(kind, params | {"defences": ["own=tests.engine.gone:make"]})


def test_a_function_without_a_file_has_a_digest_too() -> None:
    made = StepKind("a/b", 1, NoParams, print, {}, ("x",))
    assert len(code_digest(made, {})) == 64


def test_only_a_record_that_names_other_code_is_of_other_code() -> None:
    kind = StepKind("a/b", 1, NoParams, print, {}, ())
    registry = Registry()
    registry.add(kind)

    def of(code: str, kind: str = "a/b") -> StoredStep:
        return StoredStep(
            kind=kind, version=1, instance="i", params={}, started="", seconds=1.0, files={},
            code=code,
        )  # fmt: skip

    assert changed(None, registry) is False
    assert changed(of("", kind="nobody/knows"), registry) is False
    assert changed(of(code_digest(kind, {})), registry) is False
    assert changed(of("0" * 64), registry) is True


def test_science_that_is_not_there_is_named(package: Path) -> None:
    """Modules, functions and modules that cannot be read; what is there is not said."""
    (package / "broken.py").write_text("def\n")
    there = ("my_stale.method", "my_stale.steps:run", "my_stale.sub")
    assert list(absent(there)) == []
    said = {entry: wrong for entry, wrong, _ in absent(
        (*there, "my_stale.gone", "my_stale.steps:ran", "my_stale.broken:x"))}  # fmt: skip
    assert said.keys() == {"my_stale.gone", "my_stale.steps:ran", "my_stale.broken:x"}
    assert said["my_stale.gone"] == "there is no module 'my_stale.gone'"
    assert said["my_stale.steps:ran"] == "my_stale.steps has no function 'ran'"
    assert "broken.py cannot be read" in said["my_stale.broken:x"]
    (remedy,) = [remedy for *_, remedy in absent(("my_stale.steps:ran",))]
    assert "run" in remedy
    with pytest.raises(ValueError, match=r"there is no module 'my_stale\.gone'"):
        digest(science=("my_stale.gone",))
    assert digest(science=("my_stale.alone",)) != digest()
