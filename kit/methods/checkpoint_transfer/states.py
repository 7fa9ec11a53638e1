"""Hidden states by example, in memory or in files; written once and read in any order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kit.methods.checkpoint_transfer.beside import ToHost
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


class StateWriter:
    """Writes states as they are made; files are written while further states are computed.

    States leave the device at once, and the threads of the pool write them, so that whoever adds
    states may go on computing and has little left to wait for at the end.

    Args:
        folder: Made here; its index is written last.
        pool: Threads that several writers may share.
        shard: Examples in one safetensors file.
        pending: Most files that wait to be written; their states stay in the host's memory.
    """

    def __init__(
        self, folder: Path, pool: ThreadPoolExecutor, *, shard: int = 16, pending: int = 4
    ) -> None:
        """Make the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._pool, self._shard, self._most = folder, pool, shard, pending
        self._index: dict[int, str] = {}
        self._held: dict[int, Mapping[int, Tensor]] = {}
        self._to_host = ToHost()
        self._there: Callable[[], object] = _nothing
        self._files: list[Future[int]] = []

    def add(self, example: int, rows: Mapping[int, Tensor]) -> None:
        """Take an example's states: block -> [n, d], on any device.

        Raises:
            ValueError: An example twice.
        """
        if example in self._index or example in self._held:
            raise ValueError(f"example {example} has states already")
        # Copies arrive in the order in which they were asked for.
        self._held[example], self._there = self._to_host.copy(rows)
        if len(self._held) == self._shard:
            self._flush()

    def finish(self) -> int:
        """Wait for the files and write the index; the bytes written.

        Raises:
            ValueError: No states.
        """
        if self._held:
            self._flush()
        if not self._index:
            raise ValueError("no states to write")
        written = sum(file.result() for file in self._files)
        text = json.dumps({str(example): name for example, name in self._index.items()})
        (self._folder / INDEX).write_text(text + "\n", encoding="utf-8")
        return written

    def _flush(self) -> None:
        name = f"states-{len(self._files):05d}.safetensors"
        held, self._held = self._held, {}
        if len(self._files) >= self._most:
            self._files[-self._most].result()
        self._files.append(self._pool.submit(_write, self._folder / name, held, self._there))
        self._index.update(dict.fromkeys(held, name))


def write_states(
    folder: Path, states: Iterable[tuple[int, Mapping[int, Tensor]]], *, shard: int = 16
) -> int:
    """Write states by a :class:`StateWriter` of its own.

    Args:
        folder: Made here.
        states: Example and block -> [n, d].
        shard: Examples in one safetensors file.

    Returns:
        Bytes written.

    Raises:
        ValueError: An example twice, or none.
    """
    with ThreadPoolExecutor(1) as pool:
        writer = StateWriter(folder, pool, shard=shard)
        for example, rows in states:
            writer.add(example, rows)
        return writer.finish()


def _nothing() -> None:
    """What there is to wait for before the first copy."""


def _write(
    path: Path, held: Mapping[int, Mapping[int, Tensor]], there: Callable[[], object]
) -> int:
    there()
    return _save(
        path, {f"{e}/{b}": rows for e, blocks in held.items() for b, rows in blocks.items()}
    )


def _save(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """Write a safetensors file without copying a tensor under the interpreter's lock.

    The library's own ``save_file`` does (numpy's ``tobytes``), which stops the thread that gives
    the GPU its work. The format: length of the header, header, bytes one after another.
    """
    import torch

    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    header: dict[str, Any] = {}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + values.nbytes
        header[name] = {
            "dtype": names[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(values.view(torch.uint8).numpy().data)
    return len(text) + 8 + end


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
