"""What a run must remember at the end of an epoch to go on as if it had never stopped."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from .checkpoint import read_checkpoint, write_checkpoint

_NAME = re.compile(r"epoch-(\d+)\.safetensors")


class CheckpointFolder:
    """The last ``keep`` checkpoints of one run, ``epoch-0007.safetensors`` and so on.

    Of a run with a sharded bank every rank but the first writes a part beside, ``epoch-0007.rank-2.safetensors``.

    Parameters
    ----------
    folder
        Made if it is not there.
    keep
        How many to keep, at least 1; older ones are deleted once a newer one is safe.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1; it is {keep}.")
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((file for file in found if _NAME.fullmatch(file.name)), key=lambda file: file.name)

    def write(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Save the state of an epoch, then drop what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self._file(epoch), state)
        for file in self.files()[: -self.keep]:
            file.unlink()

    def newest_epoch(self) -> int | None:
        """The last epoch that was saved, or ``None`` without any."""
        names = [_NAME.fullmatch(file.name) for file in self.files()]
        return max((int(name[1]) for name in names if name), default=None)

    def read(self, epoch: int, rank: int) -> dict[str, Any]:
        """What a rank saved after an epoch; rank 0's is the checkpoint itself."""
        return read_checkpoint(self._file(epoch) if rank == 0 else self._part(epoch, rank))

    def write_part(self, epoch: int, rank: int, state: Mapping[str, Any]) -> None:
        """Save a further rank's state. It counts once the checkpoint of that epoch is written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self._part(epoch, rank), state)

    def prune_parts(self, rank: int) -> None:
        """Drop a rank's states that are too old, after a checkpoint was written."""
        for old in sorted(self.folder.glob(f"epoch-*.rank-{rank}.safetensors"))[: -self.keep]:
            old.unlink()

    def _file(self, epoch: int) -> Path:
        """The checkpoint of an epoch."""
        return self.folder / f"epoch-{epoch:04d}.safetensors"

    def _part(self, epoch: int, rank: int) -> Path:
        """A further rank's part of it."""
        return self.folder / f"epoch-{epoch:04d}.rank-{rank}.safetensors"

    def newest(self) -> dict[str, Any] | None:
        """The state of the last epoch that was saved, or ``None`` without any.

        Raises
        ------
        ValueError
            If that file cannot be read; says why.
        """
        files = self.files()
        return read_checkpoint(files[-1]) if files else None


def random_states(loader: DataLoader[Any], order: torch.Generator) -> dict[str, Any]:
    """The state of every source of chance a run draws from: torch, its GPUs, NumPy, Python, and the loader."""
    kind, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": (kind, np.asarray(keys, np.int64), *rest),
        "python": random.getstate(),
        "loader": [generator.get_state() for generator in _generators(loader, order)],
    }


def restore_random_states(states: Mapping[str, Any], loader: DataLoader[Any], order: torch.Generator) -> None:
    """Put back what :func:`random_states` read.

    Raises
    ------
    ValueError
        If the loader is not built like the one of the saved run.
    """
    generators = list(_generators(loader, order))
    if len(generators) != len(states["loader"]):
        raise ValueError(
            f"the run was saved with {len(states['loader'])} random generators in its loader and this loader has "
            f"{len(generators)}; build the loader as it was."
        )
    for generator, state in zip(generators, states["loader"], strict=True):
        generator.set_state(state)
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])


def _generators(loader: DataLoader[Any], order: torch.Generator) -> Iterator[torch.Generator]:
    """Each generator that orders the samples, once."""
    samplers = (
        loader.sampler,
        getattr(loader.sampler, "sampler", None),
        getattr(loader.batch_sampler, "sampler", None),
    )
    names = ("generator", "_generator")  # the second: a TaskMixture's
    candidates = [order, loader.generator, *(getattr(sampler, name, None) for sampler in samplers for name in names)]
    seen: set[int] = set()
    for generator in candidates:
        if isinstance(generator, torch.Generator) and id(generator) not in seen:
            seen.add(id(generator))
            yield generator
