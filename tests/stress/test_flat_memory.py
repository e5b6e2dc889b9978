"""Merges and steps leave nothing behind: the short form of ``python -m benchmarks.stress.memory``."""

from __future__ import annotations

import pytest
import torch

from benchmarks.stress.memory import Sample, grown, is_flat, merges, sampled, steps

LEAKED = 30  # objects: fewer than one in each of a part's rounds


@pytest.mark.parametrize(("part", "rounds"), [(merges, 40), (steps, 150)])
def test_memory_is_flat(part: object, rounds: int) -> None:
    samples: list[Sample] = part(rounds)  # type: ignore[operator]
    assert is_flat(samples), samples
    assert grown(samples)["objects"] < LEAKED, samples


def test_a_leak_is_seen() -> None:
    kept = []
    samples = sampled(80, lambda _: kept.append([torch.zeros(100)]))
    assert grown(samples)["objects"] >= LEAKED
