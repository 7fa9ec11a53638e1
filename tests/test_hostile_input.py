"""Input made by an enemy: documents, weights, data. Each is refused at its place, quickly, and
nothing is executed, nothing written outside the run and the store, nothing asked of the network.

Symlinks in archives: the kit unpacks no archive of any kind (a test below holds that), and refuses
links as outputs (``tests/engine/test_store.py``). HTML in a report: ``tests/report/test_html.py``.
Fuzzing of the loaders: ``tests/fuzz``.
"""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.cli.main import run as kit
from kit.errors import EXIT_INVALID, EXIT_OK, KitError, StepFailed
from kit.visible import visible
from tests.fuzz.watch import Watch
from tests.steps import small

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "manifests" / "defensive_tokens" / "full-dt.yaml"
WATCH = Watch(ROOT)
PLACE = re.compile(r"^error: \S+\.(yaml|json):\d+:\d+: ", re.MULTILINE)
SECONDS = 20


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KIT_PROGRESS", "plain")


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported() -> None:
    """Lazy imports happen once, before anybody watches."""
    kit(["plan", str(SHIPPED)])
    kit(["validate", str(SHIPPED), str(ROOT / "manifests" / "pins.yaml")])


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Call the command line under watch; returns its one complaint."""

    def call(*arguments: str) -> str:
        capsys.readouterr()
        started = time.monotonic()
        with WATCH.over(tmp_path):
            code = kit(arguments)
        assert time.monotonic() - started < SECONDS
        said = capsys.readouterr()
        text = said.err if said.err.startswith("error: ") else said.out
        assert code == EXIT_INVALID, text
        assert "Traceback" not in text
        assert "unexpected" not in text
        assert visible(text) == text, "nothing acts on the terminal"
        return text

    return call


def changed(folder: Path, old: str, new: str) -> Path:
    """The shipped manifest with one thing in it replaced."""
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    path = folder / "hostile.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id: full-dt", "id: ../../../tmp/x", "must be a name"),
        ("id: full-dt", "id: /etc/passwd", "must be a name"),
        ("id: full-dt", "id: !!python/object/apply:os.system [touch x]", "tag"),
        ("id: full-dt", BOMB + "id: full-dt", "anchor"),
        ("id: full-dt", "id: " + "9" * 100_000, "absurdly large"),
        ("id: full-dt", "id: 1e999999999", "absurdly large"),
        ("id: full-dt", "id: full-dt\nnote: 'a\x1b[2Jb'", "U+001B"),
        ("id: full-dt", "id: 'full\x00dt'", "U+0000"),
        ("id: full-dt", 'id: "\\e[31m"', "U+001B"),
        ("id: full-dt", "id: 'full\u202edt'", "U+202E"),
        ("id: full-dt", 'id: full-dt\n"\\ud800": 1', "U+D800"),
        ("id: full-dt", "id: " + "[" * 100_000, "nested deeper"),
        ("id: full-dt", "? " * 50_000 + "id: full-dt", "problem"),
        ("id: full-dt", "x: 1\n" * 50_000 + "id: full-dt", "200 problems; the rest was not read"),
        ("id: full-dt", "\x01\n" * 500_000 + "id: full-dt", "200 problems; the rest was not read"),
        ("kind: defensive-tokens/evaluate", "kind: os/system", "unknown step kind 'os/system'"),
        ("kind: defensive-tokens/evaluate", "kind: ../x/evil", "must be a step kind"),
        ("${model.target}", "${model.__class__}", "has no field '__class__'"),
        ("${model.target}", "../../../etc/passwd", "there is no pin '../../../etc/passwd'"),
        ("${model.seed}", "$(touch x)", "is no seed: a whole number"),
        ("batch: 16", "batch: 9223372036854775808", "does not fit in 64 bits"),
        ("id: source-0, group", "id: '../../x y', group", "cannot name an instance"),
    ],
    ids=lambda value: re.sub(r"[^\w./-]", "", str(value))[:24],
)
def test_a_hostile_manifest(
    tmp_path: Path, refused: Refused, old: str, new: str, said: str
) -> None:
    path = changed(tmp_path, old, new)
    for command in ("plan", "run"):
        text = refused(command, str(path))
        assert PLACE.search(text), text[:500]
        assert said in text or said == "problem"
    assert [one.name for one in tmp_path.iterdir() if one.name != "home"] == ["hostile.yaml"]


def test_axes_that_multiply(tmp_path: Path, refused: Refused) -> None:
    """Three axes of a thousand values are a billion steps; refused before one is made."""
    manifest = small.manifest()
    profile = manifest["profiles"]["mini"]
    for axis in ("a", "b", "c"):
        profile["matrix"][axis] = list(range(1000))
        manifest["axes"][axis] = "setting"
    for step in manifest["steps"]:
        if step.get("each"):
            step["each"] = [*step["each"], "a", "b", "c"]
    path = tmp_path / "small.json"
    path.write_text(json.dumps(manifest))
    text = refused("plan", str(path))
    assert "its axes have 1,000,000,000 combinations" in text
    assert PLACE.search(text)


@pytest.mark.parametrize("command", ["fetch", "run", "plan"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("files", [{"path": "../../../../evil.txt", "sha256": "0" * 64}]),
        ("files", [{"path": "/tmp/evil.txt", "sha256": "0" * 64}]),
        ("files", [{"path": "a/../../evil.txt", "sha256": "0" * 64}]),
        ("files", [{"path": "..\\evil.txt", "sha256": "0" * 64}]),
        ("files", [{"path": "C:/evil.txt", "sha256": "0" * 64}]),
        ("files", [{"path": "x" * 300, "sha256": "0" * 64}]),
        ("files", [{"path": "./config.json", "sha256": "0" * 64}]),
        ("repo", "../../evil"),
        ("repo", "a/b/../../c"),
        ("id", "../evil"),
    ],
)
def test_hostile_pins(
    tmp_path: Path, refused: Refused, command: str, field: str, value: Any
) -> None:
    """Whatever a stranger's pins.yaml says, files come into the pin's folder and nowhere else."""
    pin = {
        "id": "evil",
        "kind": "hf-model",
        "title": "x",
        "licence": "x",
        "repo": "a/b",
        "revision": "0" * 40,
        "files": [{"path": "config.json", "sha256": "0" * 64}],
        field: value,
    }
    path = small.write(tmp_path)
    (tmp_path / "pins.yaml").write_text(json.dumps({"schema_version": 1, "pins": [pin]}))
    text = refused(command, str(path))
    assert re.search(r"pins\.yaml:1:\d+: ", text)
    assert not (tmp_path / "home" / "pins").exists()


def test_instances_cannot_write_logs_elsewhere(tmp_path: Path) -> None:
    """An axis value may be called '../x'; what is named after it stays in its folder."""
    from kit.engine.job import log_path

    for name in ("train[pair=../../../x]", "a/b", "..", "x" * 5000, "a\0b"):
        path = log_path(tmp_path, name)
        assert path.parent == tmp_path
        path.touch()


# Messages.


def test_data_in_a_message_cannot_act_and_cannot_flood() -> None:
    error = StepFailed("bad row: \x1b]0;owned\x07\x9b31m " + "x" * 10_000_000, where="a\x1b[2J")
    text = error.render()
    assert len(text) < 5000
    assert "\u241b]0;owned\u2407" in text
    assert visible(text) == text
    assert "more characters]" in text


def test_events_cannot_act_on_a_terminal() -> None:
    import io

    from kit.engine.events import event
    from kit.engine.progress import PlainRenderer, Progress
    from tests.engine.conftest import plan_of

    out = io.StringIO()
    item = event("note", "make[seed=0]", text="\x1b[2J\x9b2J\u202eevil\nnext")
    PlainRenderer(Progress(plan_of()), out).show(item)
    assert out.getvalue().count("\n") == 1
    assert visible(out.getvalue()) == out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_s_words_cannot_act_on_the_terminal_of_verify(terminal: bool) -> None:
    import io

    from rich.console import Console

    from kit.results.types import Canary
    from kit.verify.render import render
    from tests.verify import builders as b

    canary = Canary(id="attack\x1b[2J", step="s", passed=False, detail="\x1b]0;owned\x07\u202e")
    verdict = b.run([b.expected_cell()], [b.share("t/a", 10, 208)], canaries=[canary])
    out = io.StringIO()
    render(verdict, Console(file=out, force_terminal=terminal, color_system=None, width=200))
    assert "\u241b]0;owned" in out.getvalue()
    assert "\x1b]" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


# What is not there cannot be attacked.


def test_the_kit_opens_no_archive_no_pickle_and_no_code() -> None:
    modules = {"tarfile", "zipfile", "shelve", "pickle", "marshal", "dill", "joblib", "cloudpickle"}
    calls = {"unpack_archive", "extractall", "eval", "exec", "compile"}
    found = []
    for path in sorted((ROOT / "kit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names if one.name in modules]
            elif isinstance(node, ast.ImportFrom) and node.module in modules:
                names = [node.module]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id] if node.func.id in calls else []
            elif isinstance(node, ast.Attribute) and node.attr in ("unpack_archive", "extractall"):
                names = [node.attr]
            found += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    allowed = {"kit/report/crate.py: zipfile"}  # writes an archive, reads none
    assert set(found) <= allowed


def test_ordinary_input_still_passes(tmp_path: Path) -> None:
    """The refusals above are not vacuous."""
    assert kit(["plan", str(small.write(tmp_path))]) == EXIT_OK
    assert issubclass(StepFailed, KitError)
