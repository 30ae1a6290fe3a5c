"""kill -9 at any moment leaves either a whole file under the final name or one that resumes."""

import os
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_masks import GreyParser, lip_source, make_dataset

import reidkit
from reidkit.masks.journal import read_records
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.store import MaskStore
from reidkit.masks.writer import stored_map, write_store

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(reidkit.__file__).parents[1])}
KILLS = 50
IMAGES = 48


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_fifty_kills_leave_a_whole_file_or_one_that_resumes(tmp_path: Path):
    rng = np.random.default_rng(9)
    dataset = make_dataset(tmp_path / "toy", images=IMAGES)
    names = [sample.path for sample in dataset.train]
    expected = np.stack([stored_map(m, num_parts=4) for m in lip_source(dataset).part_maps(names)])
    path = tmp_path / "toy.h5"
    journal = tmp_path / "toy.h5.journal"

    def check_journal() -> int:
        """Every whole record is right; the number of them."""
        task = journal.read_bytes().partition(b"\n")[0] + b"\n"
        records = read_records(journal, task)
        for count, record in enumerate(records):
            assert record.row == count and record.size == (128, 64)
            mask = np.frombuffer(zlib.decompress(record.data), np.uint8).reshape(400, 200)
            np.testing.assert_array_equal(mask, expected[count])
        return len(records)

    def check_whole() -> None:
        found = MaskStore.open(path, dataset=dataset).read(names)
        np.testing.assert_array_equal(found, expected)

    script = Path(__file__).with_name("kill_writer.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(dataset.root), str(path)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin and writer.stdout

        def write(last_call: int) -> int:
            assert writer.stdin and writer.stdout
            writer.stdin.write(f"1 {last_call}\n")
            writer.stdin.flush()
            return int(writer.stdout.readline())

        calls = write(0)  # a run that is not killed, for the number of calls
        check_whole()
        path.unlink()
        outcomes: Counter[str] = Counter()
        before = 0
        for _ in range(KILLS):
            finished = write(int(rng.integers(1, calls))) >= 0
            if path.exists():  # it finished, or was killed after the rename
                check_whole()
                path.unlink()
                journal.unlink(missing_ok=True)
                outcomes["whole"] += 1
                before = 0
                continue
            assert not finished
            after = check_journal() if journal.exists() else 0
            assert after >= before  # what was done stays done
            outcomes["resumable" if after else "nothing yet"] += 1
            before = after
        assert write(0) >= 0
        check_whole()
        writer.stdin.close()
    assert sum(outcomes.values()) == KILLS
    assert outcomes["resumable"] >= 10 and outcomes["whole"] >= 5, outcomes
    assert outcomes["nothing yet"] >= 1, outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_one_or_two_killed_processes_resume_and_lack_no_label_map(tmp_path: Path):
    rng = np.random.default_rng(4)
    dataset = make_dataset(tmp_path / "toy", images=IMAGES)
    names = [sample.path for sample in dataset.train]
    grouping = default_grouping(load_label_set("lip"))
    pixels = [np.asarray(Image.open(dataset.root / name).convert("RGB")) for name in names]
    labels = GreyParser().label_maps(pixels)
    expected = np.stack([stored_map(grouping.part_map(m), num_parts=4) for m in labels])
    path, keep = tmp_path / "toy.h5", tmp_path / "labels"

    def check_whole() -> None:
        found = MaskStore.open(path, dataset=dataset).read(names)
        np.testing.assert_array_equal(found, expected)
        assert [entry.name for entry in tmp_path.glob("toy.h5*")] == ["toy.h5"]
        for name, label_map in zip(names, labels, strict=True):
            with Image.open((keep / name).with_suffix(".png")) as kept:
                np.testing.assert_array_equal(np.asarray(kept), label_map)

    script = Path(__file__).with_name("kill_writer.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(dataset.root), str(path), str(keep)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:

        def write(processes: int, last_call: int) -> int:
            assert writer.stdin and writer.stdout
            writer.stdin.write(f"{processes} {last_call}\n")
            writer.stdin.flush()
            return int(writer.stdout.readline())

        calls = write(2, 0)
        check_whole()
        outcomes: Counter[str] = Counter()
        for turn in range(24):
            processes = 1 + turn % 3 % 2
            finished = write(processes, int(rng.integers(1, 2 * calls))) >= 0
            outcomes["finished" if finished else f"killed, {processes}"] += 1
            if finished:
                check_whole()
                path.unlink()
                shutil.rmtree(keep)
        assert write(1, 0) >= 0
        check_whole()
        assert writer.stdin
        writer.stdin.close()
    assert outcomes["killed, 1"] >= 3 and outcomes["killed, 2"] >= 3, outcomes
    assert outcomes["finished"] >= 3, outcomes


FULL_DISK = """
import resource, sys
from pathlib import Path
from toy_masks import lip_source, read_dataset
from reidkit.errors import ReidkitError
from reidkit.masks.writer import write_store

dataset = read_dataset(Path(sys.argv[1]))
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # writes beyond it fail
try:
    write_store(Path(sys.argv[2]), dataset, dataset.train, lip_source(dataset))
except ReidkitError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [0, 1000, 10_000, 20_000])
def test_a_full_disk_is_one_clear_line_and_no_final_file(tmp_path: Path, limit: int):
    dataset = make_dataset(
        tmp_path / "toy", images=IMAGES
    )  # needs a journal of 14,000 bytes and a file of 22,000
    path = tmp_path / "toy.h5"
    command = [sys.executable, "-c", FULL_DISK, str(dataset.root), str(path), str(limit)]
    found = subprocess.run(
        command, env=ENVIRONMENT, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert "cannot write" in found.stdout
    assert found.stderr == "" and found.returncode == 0
    assert not path.exists()
    write_store(path, dataset, dataset.train, lip_source(dataset))  # with room, it works
    assert len(MaskStore.open(path)) == IMAGES
