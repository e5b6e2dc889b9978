"""The collectives, what they send, and what is said when a rank is gone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selshare.distributed import Ranks, current_ranks, processes
from selshare.distributed.rows import gathered_alike, gathered_rows, own_rows, split_evenly
from several import on_ranks, start, wait


def written() -> int:
    """Bytes this process has written, to sockets above all."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar"):
            return int(line.split()[1])
    raise AssertionError("no wchar")


def test_splits_are_even() -> None:
    assert split_evenly(11, 4) == (3, 3, 3, 2)
    assert split_evenly(1, 3) == (1, 0, 0)
    assert own_rows((3, 0, 2), 2) == slice(3, 5)


@pytest.mark.parametrize("size", [2, 4])
def test_collectives(size: int, tmp_path: Path) -> None:
    sizes = (*range(1, size), 0)

    def ranked(ranks: Ranks) -> None:
        whole = torch.arange(sum(sizes) * 3, dtype=torch.float64).view(-1, 3)
        own = whole[own_rows(sizes, ranks.rank)].clone().requires_grad_()
        factor = ranks.rank + 1.0
        for gather, expected in ((gathered_rows, sum(range(1, size + 1))), (gathered_alike, factor)):
            own.grad = None
            gathered = gather(own, ranks, sizes, "test")
            assert torch.equal(gathered, whole)
            (gathered * whole * factor).sum().backward()
            torch.testing.assert_close(own.grad, own.detach() * expected)
        send = [(ranks.rank + other) % 3 for other in range(size)]
        receive = [(other + ranks.rank) % 3 for other in range(size)]
        rows = torch.repeat_interleave(torch.arange(size) * 10 + ranks.rank, torch.tensor(send)).view(-1, 1)
        wanted = torch.repeat_interleave(torch.arange(size) + 10 * ranks.rank, torch.tensor(receive)).view(-1, 1)
        assert torch.equal(ranks.exchange(rows, send, receive, "test"), wanted)
        assert ranks.exchange(rows[:0], [0] * size, [0] * size, "test").shape == (0, 1)
        assert ranks.largest(torch.tensor([ranks.rank, -ranks.rank]), "test").tolist() == [size - 1, 0]
        assert ranks.decide(lambda: ranks.rank, "test") == 0
        with pytest.raises(KeyError, match="a word"):
            ranks.decide(lambda: {}["a word"], "test")
        assert current_ranks() is ranks

    on_ranks(ranked, size, tmp_path)


def test_bytes_are_those_that_sockets_see(tmp_path: Path) -> None:
    def ranked(ranks: Ranks) -> list[tuple[int, int]]:
        many: Tensor = torch.ones(4, 50_000)
        share = many[: 4 // ranks.size].contiguous()
        seen = []
        for call in (
            lambda: ranks.all_reduce(many, "sum"),
            lambda: ranks.gather_rows(share, [len(share)] * ranks.size, "gather"),
            lambda: ranks.exchange(many, [len(share)] * ranks.size, [len(share)] * ranks.size, "exchange"),
        ):
            call()
            ranks.meet("test")
            before, counted = written(), sum(ranks.sent.values())
            call()
            seen.append((written() - before, sum(ranks.sent.values()) - counted))
            ranks.meet("test")
        return seen

    for seen in on_ranks(ranked, 4, tmp_path):
        for measured, counted in seen:
            assert counted <= measured <= 1.01 * counted + 500


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="not initialised"):
        Ranks()
    with processes() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
        assert current_ranks() is None


def test_the_rank_that_holds_the_store_is_named_by_one_of_the_others(tmp_path: Path) -> None:
    def ranked(ranks: Ranks) -> None:
        ranks.meet("start")
        (tmp_path / f"reached-{ranks.rank}").touch()
        for _ in range(100_000):
            ranks.all_reduce(torch.ones(10), "gradients")

    children = start(ranked, 3, tmp_path)
    while len(list(tmp_path.glob("reached-*"))) < 3:
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    assert wait(children) == [-signal.SIGKILL, 1, 1]
    logs = [(tmp_path / f"{rank}.log").read_text() for rank in (1, 2)]
    lines = [line for log in logs for line in log.splitlines() if line.startswith("selshare: ")]
    assert len(lines) == 1, logs
    assert "rank 0 of 3 is gone (its process is gone): rank 1 noticed" in lines[0]


@pytest.mark.parametrize("how", ["killed", "stopped", "raises"])
def test_a_lost_rank_ends_the_run_with_one_clear_error(how: str, tmp_path: Path) -> None:
    def ranked(ranks: Ranks) -> None:
        for step in range(10_000):
            if ranks.rank == 1 and step == 20:
                (tmp_path / "reached").touch()
                if how == "raises":
                    raise ValueError("Task 'b' has the target 7 in row 3.")
                time.sleep(60)
            ranks.all_reduce(torch.ones(10), "gradients")

    children = start(ranked, 3, tmp_path, timeout=2.0)
    while not (tmp_path / "reached").exists():
        time.sleep(0.01)
    if how == "killed":
        os.kill(children[1], signal.SIGKILL)
    if how == "stopped":
        os.kill(children[1], signal.SIGSTOP)
        assert wait([children[0], children[2]]) == [1, 1]
        os.kill(children[1], signal.SIGKILL)
        assert wait([children[1]]) == [-signal.SIGKILL]
    else:
        assert wait(children) == [1, 1 if how == "raises" else -signal.SIGKILL, 1]
    logs = [(tmp_path / f"{rank}.log").read_text() for rank in (0, 2)]
    lines = [line for log in logs for line in log.splitlines() if line.startswith("selshare: ")]
    assert len(lines) == 1, logs
    assert "Traceback" not in "".join(logs)
    why = {
        "killed": "its process is gone",
        "stopped": "it stopped answering",
        "raises": "ValueError: Task 'b' has the target 7 in row 3.",
    }[how]
    assert f"rank 1 of 3 is gone ({why})" in lines[0]
    assert "while it exchanged gradients" in lines[0]
    assert "fit(resume='auto')" in lines[0]
