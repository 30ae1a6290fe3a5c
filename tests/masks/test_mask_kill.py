"""kill -9 at any moment leaves either a whole file under the final name or one that resumes."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from toy_masks import lip_source, make_dataset

import reidkit
from reidkit.errors import MaskError
from reidkit.masks import grid
from reidkit.masks.layout import read_layout
from reidkit.masks.store import MaskStore, write_store

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(reidkit.__file__).parents[1])}
KILLS = 50
IMAGES = 48


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_fifty_kills_leave_a_whole_file_or_one_that_resumes(tmp_path: Path):
    rng = np.random.default_rng(9)
    dataset = make_dataset(tmp_path / "toy", images=IMAGES)
    names = [sample.path for sample in dataset.train]
    expected = np.stack(
        [
            grid.sample_points(part_map, num_labels=5)
            for part_map in lip_source(dataset).part_maps(names)
        ]
    )
    packed = grid.pack(expected, num_labels=5)
    path = tmp_path / "toy.h5"
    partial = tmp_path / "toy.h5.partial"

    def check_partial() -> int:
        """Every row whose bit is set is right; how many there are."""
        layout = read_layout(partial)
        assert layout.paths == tuple(names)
        content = np.frombuffer(partial.read_bytes(), np.uint8)
        rows = content[layout.masks_offset :][: packed.size].reshape(packed.shape)
        bits = content[layout.done_offset :][: layout.num_bits]
        done = np.unpackbits(bits, count=IMAGES, bitorder="little").astype(bool)
        np.testing.assert_array_equal(rows[done], packed[done])
        return int(done.sum())

    def check_whole() -> None:
        spread = grid.spread_index(grid.GRIDS, grid.MAP_SIZE)
        found = MaskStore.open(path, dataset=dataset).read(names)
        np.testing.assert_array_equal(found.reshape(IMAGES, -1), expected[:, spread])

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
            writer.stdin.write(f"{last_call}\n")
            writer.stdin.flush()
            return int(writer.stdout.readline())

        calls = write(0)  # one run that lives, to know how long a run is
        check_whole()
        path.unlink()
        tally: Counter[str] = Counter()
        before = 0
        for _ in range(KILLS):
            lived = write(int(rng.integers(1, calls))) >= 0
            if path.exists():  # it came to its end, or died after giving the file its name
                check_whole()
                assert not partial.exists()
                path.unlink()
                tally["whole"] += 1
                before = 0
                continue
            assert not lived
            try:
                after = check_partial()
            except (MaskError, FileNotFoundError):
                assert before == 0  # only a file that was not yet laid out
                tally["nothing yet"] += 1
                continue
            assert after >= before  # what was done stays done
            tally["resumable"] += 1
            before = after
        assert write(0) >= 0
        check_whole()
        writer.stdin.close()
    assert sum(tally.values()) == KILLS
    assert tally["resumable"] >= 10 and tally["whole"] >= 5, tally
    assert tally["nothing yet"] >= 1, tally


FULL_DISK = """
import resource, sys
from pathlib import Path
from toy_masks import lip_source, read_dataset
from reidkit.errors import MaskError
from reidkit.masks.store import write_store

dataset = read_dataset(Path(sys.argv[1]))
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # writes beyond it fail
try:
    write_store(Path(sys.argv[2]), dataset, dataset.train, lip_source(dataset))
except MaskError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [0, 1000, 15_000])
def test_a_full_disk_is_one_clear_line_and_no_final_file(tmp_path: Path, limit: int):
    dataset = make_dataset(tmp_path / "toy", images=IMAGES)  # needs some 17,000 bytes
    path = tmp_path / "toy.h5"
    command = [sys.executable, "-c", FULL_DISK, str(dataset.root), str(path), str(limit)]
    found = subprocess.run(
        command, env=ENVIRONMENT, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert "cannot write" in found.stdout and "the same command resumes" in found.stdout
    assert found.stderr == "" and found.returncode == 0
    assert not path.exists()
    write_store(path, dataset, dataset.train, lip_source(dataset))  # with room, it works
    assert len(MaskStore.open(path)) == IMAGES
