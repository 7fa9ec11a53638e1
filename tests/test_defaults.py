"""What a setting is when nobody names it: recorded, because a number may rest on it unwritten.

``python -m tests.test_defaults`` writes ``tests/defaults.json`` anew; a line that changed there is
said in CHANGELOG.md where numbers or keys move with it.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest

import kit

pytestmark = pytest.mark.filterwarnings("ignore")
RECORD = Path(__file__).with_name("defaults.json")
PLAIN = (bool, int, float, str, type(None))


def modules() -> Iterator[ModuleType]:
    """All of ``kit`` but the template, which is a reader's own."""
    for found in pkgutil.walk_packages(kit.__path__, "kit."):
        if found.name.startswith("kit.cli.template") or found.name.endswith("__main__"):
            continue
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name not in ("vllm", "deepspeed"):  # not in every environment of the tests
                raise


def plain(value: Any) -> bool:
    """Whether JSON holds it as it is."""
    if isinstance(value, tuple):
        return all(plain(part) for part in value)
    return type(value) in PLAIN


def of_class(made: type) -> Iterator[tuple[str, Any]]:
    """Defaults of the fields that a class adds."""
    own = vars(made).get("__annotations__", {})
    if dataclasses.is_dataclass(made):
        for field in dataclasses.fields(made):
            if field.name in own and field.default is not dataclasses.MISSING:
                yield field.name, field.default
    elif issubclass(made, msgspec.Struct):
        for info in msgspec.structs.fields(made):
            if info.name in own and info.default is not msgspec.NODEFAULT:
                yield info.name, info.default


def of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Defaults of its parameters."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield name, parameter.default


def of_module(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Defaults in a module, by the name of what has them."""
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", "") != module.__name__:
            continue
        if isinstance(thing, type):
            for field, value in of_class(thing):
                yield f"{name}.{field}", value
            for method, inner in vars(thing).items():
                function = getattr(inner, "__func__", inner)
                made_here = getattr(function, "__module__", "") == module.__name__
                generated = method == "__init__" and dataclasses.is_dataclass(thing)
                if isinstance(function, FunctionType) and made_here and not generated:
                    for field, value in of_function(function):
                        yield f"{name}.{method}({field})", value
        elif isinstance(thing, FunctionType):
            for field, value in of_function(thing):
                yield f"{name}({field})", value


def defaults() -> dict[str, dict[str, Any]]:
    """Module -> name -> default."""
    made = {}
    for module in modules():
        known = {name: value for name, value in of_module(module) if plain(value)}
        if known:
            made[module.__name__] = json.loads(json.dumps(known))
    return made


@pytest.fixture(scope="module")
def now() -> dict[str, dict[str, Any]]:
    """As they are."""
    return defaults()


RECORDED: dict[str, dict[str, Any]] = (
    json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
)


@pytest.mark.parametrize("module", sorted(RECORDED))
def test_no_default_moves_unnoticed(now: dict[str, dict[str, Any]], module: str) -> None:
    here = now.get(module, {})
    both = {name: (value, here[name]) for name, value in RECORDED[module].items() if name in here}
    moved = {name: pair for name, pair in both.items() if repr(pair[0]) != repr(pair[1])}
    assert not moved, "recorded, and now; python -m tests.test_defaults writes them anew"


def test_the_record_holds_what_is_there(now: dict[str, dict[str, Any]]) -> None:
    names = {f"{module}:{name}" for module, of in now.items() for name in of}
    known = {f"{module}:{name}" for module, of in RECORDED.items() for name in of}
    assert len(names & known) > 0.9 * len(names), "python -m tests.test_defaults writes them anew"


if __name__ == "__main__":
    RECORD.write_text(json.dumps(defaults(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
