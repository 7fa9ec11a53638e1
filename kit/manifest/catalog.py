"""The repository's experiments, pins and expectations, found by name and read when asked for."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from kit.errors import InvalidInput, UsageError
from kit.manifest.expectation_types import Expectation
from kit.manifest.home import find_root, open_folder
from kit.manifest.load import Loaded, read_expectation, read_manifest, read_pins
from kit.manifest.matrix import needed_pins
from kit.manifest.pin_types import Pin, Pins
from kit.manifest.source import nearest
from kit.manifest.types import Manifest

SUFFIXES = (".yaml", ".yml", ".json")


class Catalog:
    """What a repository describes.

    Experiments are files ``manifests/<family>/<id>.yaml``; pins are ``manifests/pins.yaml`` and,
    beside it, any ``pins.<part>.yaml``; expectations are
    ``expected_results/<family>/<id>.<profile>.yaml``. Instead of an id, every method also takes
    the path of a user's own manifest; a ``pins.yaml`` in the same folder then adds to the
    repository's pins, and ``<id>.<profile>.expected.yaml`` there is its expectation.

    Args:
        root: Repository root; found from the working directory when absent.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root).resolve() if root is not None else find_root()
        self._manifests: dict[Path, Loaded[Manifest]] = {}
        self._expectations: dict[Path, Loaded[Expectation]] = {}
        self._pins: dict[Path, Loaded[Pins]] = {}

    def files(self) -> dict[str, Path]:
        """Experiment id -> manifest file, sorted by family and id. Opens no file."""
        paths: dict[str, Path] = {}
        for path in sorted((self.root / "manifests").glob("*/*")):
            if path.suffix in SUFFIXES and path.parent.name != "schema":
                if path.stem in paths:
                    raise InvalidInput(
                        f"two manifests of the name {path.stem!r}",
                        where=str(path.relative_to(self.root)),
                        why=f"the other is {paths[path.stem].relative_to(self.root)}",
                        next_step="rename one; an id names one experiment",
                    )
                paths[path.stem] = path
        return paths

    def ids(self) -> list[str]:
        """Ids of all experiments, by family and name."""
        return list(self.files())

    def manifest_path(self, experiment: str | Path) -> Path:
        """The manifest file of an id, or the path itself if a path was given.

        Raises:
            UsageError: No such experiment; the message suggests the nearest name.
        """
        if is_path(experiment):
            path = Path(experiment)
            if not path.is_file():
                raise UsageError(f"no manifest at {experiment}", next_step="check the path")
            open_folder(path)
            return path.resolve()
        files = self.files()
        name = str(experiment)
        if name in files:
            return files[name]
        known = ", ".join(files) or "none"
        raise UsageError(
            f"unknown experiment {name!r}",
            next_step=nearest(name, list(files)) or f"kit list; known: {known}",
        )

    def own_path(self, experiment: str | Path) -> Path | None:
        """The manifest file, if it is the user's own and none of the repository's."""
        path = self.manifest_path(experiment) if is_path(experiment) else None
        return None if path in self.files().values() else path

    def load(self, experiment: str | Path) -> Loaded[Manifest]:
        """A manifest with source positions."""
        path = self.manifest_path(experiment)
        if path not in self._manifests:
            self._manifests[path] = read_manifest(path)
        return self._manifests[path]

    def manifest(self, experiment: str | Path) -> Manifest:
        """The manifest of an id or path."""
        return self.load(experiment).value

    def needed_pins(self, experiment: str | Path, profile: str) -> list[str]:
        """Ids of the pins that a profile's steps name, in order of first use.

        Raises:
            UsageError: No such profile.
            InvalidInput: A reference that leads nowhere, at its place in the file.
        """
        loaded = self.load(experiment)
        try:
            return needed_pins(loaded.value, profile)
        except InvalidInput as error:
            raise loaded.placed(error) from None

    def pin_files(self, experiment: str | Path | None = None) -> list[Path]:
        """Pin files of the repository, and the one beside a user's own manifest."""
        folder = self.root / "manifests"
        paths = [folder / "pins.yaml", *sorted(folder.glob("pins.*.yaml"))]
        if experiment is not None and is_path(experiment):
            own = self.manifest_path(experiment).parent / "pins.yaml"
            if own.is_file() and own.resolve() != paths[0].resolve():
                paths.append(own)
        return [path for path in paths if path.is_file()]

    def load_pins(self, experiment: str | Path | None = None) -> list[Loaded[Pins]]:
        """Every pin file with source positions."""
        loaded = []
        for path in self.pin_files(experiment):
            if path not in self._pins:
                self._pins[path] = read_pins(path)
            loaded.append(self._pins[path])
        return loaded

    def pins(self, experiment: str | Path | None = None) -> Pins:
        """All pins together.

        Raises:
            InvalidInput: Two pins of one id.
        """
        pins: dict[str, Pin] = {}
        for loaded in self.load_pins(experiment):
            for index, pin in enumerate(loaded.value.pins):
                if pin.id in pins:
                    raise InvalidInput(
                        f"a second pin {pin.id!r}", where=loaded.locate(("pins", index, "id"))
                    )
                if pin.folder is not None:
                    folder = (loaded.source.path.parent / pin.folder).resolve()
                    pin = structs.replace(pin, folder=str(folder))
                pins[pin.id] = pin
        return Pins(schema_version=1, pins=list(pins.values()))

    def expectation_path(self, experiment: str | Path, profile: str) -> Path | None:
        """The expectation file, or ``None`` when the repository has none."""
        path = self.manifest_path(experiment)
        if self.own_path(experiment) is not None:
            candidates = [path.parent / f"{path.stem}.{profile}.expected{s}" for s in SUFFIXES]
        else:
            folder = self.root / "expected_results" / path.parent.name
            candidates = [folder / f"{path.stem}.{profile}{suffix}" for suffix in SUFFIXES]
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    def load_expectation(self, experiment: str | Path, profile: str) -> Loaded[Expectation] | None:
        """The expectation with source positions, if there is one."""
        path = self.expectation_path(experiment, profile)
        if path is None:
            return None
        if path not in self._expectations:
            self._expectations[path] = read_expectation(path)
        return self._expectations[path]

    def expectation(self, experiment: str | Path, profile: str) -> Expectation | None:
        """The expectation of an experiment at a profile, if there is one."""
        loaded = self.load_expectation(experiment, profile)
        return loaded.value if loaded is not None else None

    def expectation_files(self) -> list[Path]:
        """Every expectation below ``expected_results``; records of reference runs are none."""
        folder = self.root / "expected_results"
        files = (p for p in folder.glob("*/*") if p.suffix in SUFFIXES)
        return sorted(p for p in files if p.parent.name != "reference")

    def reference_record(self, experiment: str, profile: str) -> Path:
        """Where `kit reference` keeps the record of the runs behind an expectation's references."""
        return self.root / "expected_results" / "reference" / f"{experiment}.{profile}.jsonl"

    def relative(self, path: Path) -> str:
        """``path`` relative to the root where it lies below it."""
        try:
            return str(path.resolve().relative_to(self.root))
        except ValueError:
            return str(path)


def is_path(experiment: str | Path) -> bool:
    """Whether a command's argument means a file and not an id."""
    text = str(experiment)
    return isinstance(experiment, Path) or "/" in text or text.endswith(SUFFIXES)
