"""Two processes on a CPU compute what one process computes on the same global batch."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from distributed_run import STEPS, fit, interrupted, train_steps

from reidkit.errors import ConfigError
from reidkit.runtime.distributed import ProcessGroup
from reidkit.training.checkpoints import read_resume_point
from reidkit.training.distributed import check_divisible
from reidkit.training.logging import read_history

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["distributed_run", "killed_run"])

Work = Callable[[str, str, str, int, int, int], None]


def start(work: Work, market: Path, out: Path, *, size: int, distance: str = "cosine") -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        PROCESSES.Process(target=work, args=(str(market), str(out), distance, rank, size, port))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * size


def test_losses_and_weights_are_those_of_one_process(market: Path, tmp_path: Path) -> None:
    """Batch norm, hard triplets and gradients see the whole batch: in float64, three updates later,
    losses agree to 1e-6 and weights to 1e-8."""
    found = {}
    for size in (1, 2):
        out = tmp_path / f"{size}.pt"
        start(train_steps, market, out, size=size, distance="euclidean")
        found[size] = torch.load(out, weights_only=True)
    assert len(found[1]["losses"]) == 1 and len(found[2]["losses"]) == 2
    for step in range(STEPS):
        alone = found[1]["losses"][0][step]
        for name, value in alone.items():
            shared = [losses[step][name] for losses in found[2]["losses"]]
            assert sum(shared) / 2 == pytest.approx(value, abs=1e-6, rel=1e-6), (step, name)
    assert found[1]["model"].keys() == found[2]["model"].keys()
    for name, value in found[1]["model"].items():
        torch.testing.assert_close(found[2]["model"][name], value, rtol=1e-5, atol=1e-8)


def test_two_processes_write_the_same_run_folder_as_one(market: Path, tmp_path: Path) -> None:
    for size in (1, 2):
        start(fit, market, tmp_path / str(size), size=size)
    names = [sorted(path.name for path in (tmp_path / str(size)).iterdir()) for size in (1, 2)]
    assert names[0] == names[1]
    (alone,), (shared,) = (read_history(tmp_path / str(size)) for size in (1, 2))
    assert shared["images"] == alone["images"]
    # in float32, rounding grows with every update of the epoch
    assert shared["losses"] == pytest.approx(alone["losses"], rel=3e-2)
    for count in ("queries", "gallery"):
        assert shared["test"][count] == alone["test"][count]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shards_are_contiguous_and_nearly_equal(size: int) -> None:
    items = list(range(13))
    shards = [ProcessGroup(rank, size).shard(items) for rank in range(size)]
    assert [item for shard in shards for item in shard] == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_batch_that_cannot_be_split_names_possible_numbers_of_processes() -> None:
    check_divisible(64, 4, 8)
    with pytest.raises(ConfigError, match=r"Use 1, 2, 4, 8, 16 processes, or --batch 60"):
        check_divisible(64, 4, 3)


def test_interrupted_processes_stop_together_at_a_resume_point(
    market: Path, tmp_path: Path
) -> None:
    start(interrupted, market, tmp_path / "run", size=2)
    document = read_resume_point(tmp_path / "run")
    assert document["position"][:2] == [1, 0] and len(document["random"]) == 2
