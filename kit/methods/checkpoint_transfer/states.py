"""Hidden states by example, in memory or in files; written once and read in any order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kit.results.plain import read_json

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "states.json"


class States(Protocol):
    """States of examples, without padding."""

    def rows(self, example: int) -> dict[int, Tensor]:
        """Block -> [n, d] of one example.

        Raises:
            ValueError: An example that is not kept.
        """
        ...

    def __contains__(self, example: int) -> bool: ...


class MemoryStates(dict[int, dict[int, "Tensor"]]):
    """States in memory: example -> block -> [n, d]."""

    def rows(self, example: int) -> dict[int, Tensor]:
        """Block -> [n, d] of one example."""
        if example not in self:
            raise ValueError(f"no states are kept of example {example}")
        return self[example]


def write_states(
    folder: Path, states: Iterable[tuple[int, Mapping[int, Tensor]]], *, shard: int = 64
) -> int:
    """Write states as they are made; a file is written while those of the next are computed.

    At most twice ``shard`` examples are in memory.

    Args:
        folder: Made here; its index is written last.
        states: Example and block -> [n, d].
        shard: Examples in one safetensors file.

    Returns:
        Bytes written.

    Raises:
        ValueError: An example twice, or none.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    index: dict[int, str] = {}
    held: dict[str, Tensor] = {}
    examples: list[int] = []
    writing: list[Future[None]] = []

    def flush(writer: Executor) -> None:
        name = f"states-{len(writing):05d}.safetensors"
        if writing:
            writing[-1].result()
        writing.append(writer.submit(save_file, dict(held), folder / name))
        index.update(dict.fromkeys(examples, name))
        held.clear()
        examples.clear()

    with ThreadPoolExecutor(1) as writer:
        for example, rows in states:
            if example in index or example in examples:
                raise ValueError(f"example {example} has states already")
            examples.append(example)
            for block, values in rows.items():
                held[f"{example}/{block}"] = values.detach().cpu().contiguous()
            if len(examples) == shard:
                flush(writer)
        if examples:
            flush(writer)
    if not index:
        raise ValueError("no states to write")
    writing[-1].result()
    text = json.dumps({str(example): name for example, name in index.items()})
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    return sum((folder / name).stat().st_size for name in set(index.values()))


class FileStates:
    """States in the files of :func:`write_states`; files stay open, tensors are read when asked.

    Args:
        folder: As written.

    Raises:
        ValueError: No index, or a file that it names is missing.
    """

    def __init__(self, folder: Path) -> None:
        """Read the index; tensors stay on disk."""
        try:
            index = read_json(folder / INDEX, dict[str, str])
            self._files = {int(example): name for example, name in index.items()}
        except ValueError as error:
            raise ValueError(f"{folder} holds no states: {INDEX}: {error}") from None
        there = {path.name for path in folder.iterdir() if path.is_file()}
        for name in sorted(set(self._files.values())):
            if name not in there:
                raise ValueError(f"{folder / INDEX} names {name}, which is not a file beside it")
        self._folder = folder
        self._stack = ExitStack()
        self._open: dict[str, Any] = {}
        self._keys: dict[int, list[str]] = {}

    def __contains__(self, example: int) -> bool:
        """Whether the example's states are there."""
        return example in self._files

    def __iter__(self) -> Iterator[int]:
        """The examples, in the order of writing."""
        return iter(self._files)

    def rows(self, example: int) -> dict[int, Tensor]:
        """Block -> [n, d] of one example."""
        if example not in self._files:
            raise ValueError(f"no states are kept of example {example}")
        handle = self._handle(self._files[example])
        return {int(key.split("/")[1]): handle.get_tensor(key) for key in self._keys[example]}

    def close(self) -> None:
        """Close the files."""
        self._open.clear()
        self._stack.close()

    def _handle(self, name: str) -> Any:
        from safetensors import safe_open

        if name not in self._open:
            handle = self._stack.enter_context(safe_open(self._folder / name, framework="pt"))
            self._open[name] = handle
            keys: list[str] = list(handle.keys())
            for key in keys:
                self._keys.setdefault(int(key.split("/")[0]), []).append(key)
        return self._open[name]
