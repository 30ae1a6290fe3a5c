"""Every published layout, in a few empty files: ids and cameras, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from reidkit.data.manifest import locate, open_dataset
from reidkit.data.unpack import unpack_cifar100, unpack_cuhk03
from reidkit.data.verify import verify
from reidkit.errors import DataError
from reidkit.types import Item, Tracklet


def quiet(done: int, total: int) -> None:
    pass


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def ids_and_cameras(items: tuple[Item, ...]) -> list[tuple[int, int]]:
    return [(item.pid, item.camid) for item in items]


def test_dukemtmc_reid_is_read_by_its_file_names(tmp_path: Path) -> None:
    touch(
        tmp_path / "DukeMTMC-reID",
        "bounding_box_train/0001_c2_f0046182.jpg",
        "query/0005_c2_f0046985.jpg",
        "bounding_box_test/0005_c8_f0107250.jpg",
        "bounding_box_test/7004_c2_f0053881.jpg",
    )
    data = open_dataset("dukemtmc-reid", tmp_path)
    assert ids_and_cameras(data.train) == [(1, 2)] and ids_and_cameras(data.query) == [(5, 2)]
    assert ids_and_cameras(data.gallery) == [(5, 8), (7004, 2)]


def make_msmt17(root: Path, train: str, test: str) -> None:
    lists = {
        "list_train.txt": (train, ["0000/0000_000_01_0303morning_0008_0.jpg 0"]),
        "list_val.txt": (train, ["0001/0001_007_14_0303morning_0008_1.jpg 1"]),
        "list_query.txt": (test, ["0000/0000_000_05_0303morning_0032_0.jpg 0"]),
        "list_gallery.txt": (test, ["0000/0000_001_14_0303noon_0032_0.jpg 0"]),
    }
    for name, (folder, lines) in lists.items():
        touch(root / folder, *(line.split()[0] for line in lines))
        (root / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("train", "test", "name"),
    [("train", "test", "msmt17@v1"), ("mask_train_v2", "mask_test_v2", "msmt17@v2")],
)
def test_the_folders_on_disk_identify_the_release_of_msmt17(
    tmp_path: Path, train: str, test: str, name: str
) -> None:
    make_msmt17(tmp_path / "MSMT17_V1", train, test)
    data = open_dataset("msmt17", tmp_path)
    assert data.name == name == open_dataset(name, tmp_path).name
    assert ids_and_cameras(data.train) == [(0, 1), (1, 14)]
    assert ids_and_cameras(data.query) == [(0, 5)] and ids_and_cameras(data.gallery) == [(0, 14)]
    manifest, _ = locate("msmt17", tmp_path)
    assert "ids both in train and test" not in [c.what for c in verify(manifest, data)]


def test_the_two_releases_differ_in_fingerprint_and_are_never_guessed(
    tmp_path: Path,
) -> None:
    make_msmt17(tmp_path / "MSMT17", "train", "test")
    first = open_dataset("msmt17", tmp_path).fingerprint
    make_msmt17(tmp_path / "MSMT17", "mask_train_v2", "mask_test_v2")
    with pytest.raises(DataError, match="Choose one: msmt17@v1, msmt17@v2"):
        open_dataset("msmt17", tmp_path)
    assert open_dataset("msmt17@v1", tmp_path).fingerprint == first
    assert open_dataset("msmt17@v2", tmp_path).fingerprint != first
    with pytest.raises(DataError, match="no variant 'v3'"):
        open_dataset("msmt17@v3", tmp_path)


def test_an_incomplete_msmt17_is_refused(tmp_path: Path) -> None:
    make_msmt17(tmp_path / "MSMT17", "train", "test")
    (tmp_path / "MSMT17/test/0000/0000_001_14_0303noon_0032_0.jpg").unlink()
    (tmp_path / "MSMT17/list_val.txt").unlink()
    with pytest.raises(DataError, match="2 problems") as caught:
        open_dataset("msmt17", tmp_path)
    assert "missing list" in str(caught.value) and "Is the archive fully unpacked?" in str(
        caught.value
    )
    with pytest.raises(DataError, match="expected the folders mask_train_v2, mask_test_v2"):
        open_dataset("msmt17@v2", tmp_path)


def make_mars(root: Path) -> None:
    train = [f"0001C1T0001F{n:03d}.jpg" for n in (1, 2, 3)] + ["0003C2T0001F001.jpg"]
    test = ["00-1C1T0001F001.jpg", "0000C1T0001F001.jpg", "0002C1T0001F001.jpg"]
    test += ["0002C1T0001F002.jpg", "0002C5T0001F001.jpg"]
    touch(root / "bbox_train", *(f"{name[:4]}/{name}" for name in train))
    touch(root / "bbox_test", *(f"{name[:4]}/{name}" for name in test))
    (root / "info").mkdir()
    (root / "info/train_name.txt").write_text("\n".join(train))
    (root / "info/test_name.txt").write_text("\n".join(test))
    tracks = np.array([[1, 3, 1, 1], [4, 4, 3, 2]])
    savemat(root / "info/tracks_train_info.mat", {"track_train_info": tracks})
    tracks = np.array([[1, 1, -1, 1], [2, 2, 0, 1], [3, 4, 2, 1], [5, 5, 2, 5]])
    savemat(root / "info/tracks_test_info.mat", {"track_test_info": tracks})
    savemat(root / "info/query_IDX.mat", {"query_IDX": np.array([[3]])})


def test_mars_reads_its_tracklets_from_info(tmp_path: Path) -> None:
    make_mars(tmp_path / "MARS")
    data = open_dataset("mars", tmp_path)
    assert [len(t.frames) for t in data.train if isinstance(t, Tracklet)] == [3, 1]
    assert ids_and_cameras(data.train) == [(1, 1), (3, 2)] and ids_and_cameras(data.query) == [
        (2, 1)
    ]
    assert data.query[0].path == "bbox_test/0002/0002C1T0001F001.jpg"
    assert [(t.pid, t.role) for t in data.gallery] == [
        (-1, "junk"),
        (0, "distractor"),
        (2, "person"),
    ]
    assert data.protocol == "mars"


def test_mars_refuses_tracklets_without_frames_or_of_several_ids(tmp_path: Path) -> None:
    make_mars(tmp_path / "MARS")
    info = tmp_path / "MARS/info"
    tracks = np.array([[3, 2, 1, 1], [3, 4, 3, 2], [4, 9, 3, 2]])
    savemat(info / "tracks_train_info.mat", {"track_train_info": tracks})
    with pytest.raises(DataError, match="mars: 3 problems") as caught:
        open_dataset("mars", tmp_path)
    for problem in (
        "track 1 .* has no frames",
        "track 2 .* several ids",
        "frames 4 to 9 of 4 names",
    ):
        assert caught.match(problem)
    (info / "query_IDX.mat").write_bytes(b"not a mat file")
    with pytest.raises(DataError, match=r"query_IDX\.mat cannot be read as a MATLAB file"):
        open_dataset("mars", tmp_path)


@pytest.mark.parametrize("style", ["0001_C6_F{:04d}_X30823.jpg", "0001C6F{:04d}X30823.jpg"])
def test_dukemtmc_videoreid_accepts_both_naming_styles(tmp_path: Path, style: str) -> None:
    root = tmp_path / "DukeMTMC-VideoReID"
    touch(root, *(f"train/0001/0007/{style.format(n)}" for n in (2, 1, 10)))
    touch(root, "query/0005/0001/0005_C1_F0001_X1.jpg", "gallery/0005/0002/0005_C2_F0001_X1.jpg")
    data = open_dataset("dukemtmc-videoreid", tmp_path)
    (tracklet,) = data.train
    assert isinstance(tracklet, Tracklet) and (tracklet.pid, tracklet.camid) == (1, 6)
    order = [style.format(n) for n in (1, 2, 10)]
    assert [frame.path.rpartition("/")[2] for frame in tracklet.frames] == order
    assert data.dense == 32
    (root / "gallery/0005/0003").mkdir()
    with pytest.raises(DataError, match=r"tracklet .*0003 has no frames"):
        open_dataset("dukemtmc-videoreid", tmp_path)


def make_cuhk03(root: Path) -> None:
    """A cuhk-03.mat of two camera pairs, three and one person, one or two images a view."""
    root.mkdir()
    with h5py.File(root / "cuhk-03.mat", "w") as mat:
        reference = h5py.special_dtype(ref=h5py.Reference)

        def store(name: str, value: np.ndarray) -> h5py.Reference:
            mat[name] = value
            return mat[name].ref

        for boxes in ("labeled", "detected"):
            pairs = []
            for pair, persons in enumerate((3, 1)):
                cells = mat.create_dataset(f"{boxes}_{pair}", (10, persons), reference)
                for person in range(persons):
                    for number in range(10):
                        there = number in (0, 1, 5)
                        value = np.full((3, 4, 6), 40 * pair + person, np.uint8)
                        value[0, 3] = 200  # red on the right
                        name = f"image_{boxes}_{pair}_{person}_{number}"
                        ref = store(name, value if there else np.zeros(2, np.uint64))
                        cells[number, person] = ref
                pairs.append(cells.ref)
            mat.create_dataset(boxes, (1, 2), reference)[0] = pairs
        splits = [store("s0", np.array([[1.0], [2.0]])), store("s1", np.array([[1, 2], [1, 1.0]]))]
        mat.create_dataset("testsets", (1, 2), reference)[0] = splits
    names = [f"1_{p:03d}_{v}_{n:02d}.png" for p in (1, 2, 3) for v, n in ((1, 1), (1, 2), (2, 6))]
    files = np.empty((9, 1), object)
    files[:, 0] = names
    config = {
        "filelist": files,
        "labels": np.repeat([1, 2, 3], 3)[:, None],
        "camId": np.tile([1, 1, 2], 3)[:, None],
        "train_idx": np.array([[1], [2], [3]]),
        "query_idx": np.array([[4]]),
        "gallery_idx": np.array([[6], [9]]),
    }
    savemat(root / "cuhk03_new_protocol_config_labeled.mat", config)


def test_cuhk03_is_unpacked_from_its_mat_file_and_read_by_both_protocols(tmp_path: Path) -> None:
    root = tmp_path / "cuhk03_release"
    make_cuhk03(root)
    with pytest.raises(DataError, match=r"is not unpacked .* datasets unpack cuhk03-np-labeled"):
        open_dataset("cuhk03-np-labeled", tmp_path)
    unpack_cuhk03(root, on_progress=quiet)
    assert len(list((root / "images_detected").iterdir())) == 12
    with Image.open(root / "images_labeled/2_001_2_06.png") as image:
        assert image.size == (4, 6) and image.getpixel((3, 0)) == (200, 40, 40)
    new = open_dataset("cuhk03-np-labeled", tmp_path)
    assert ids_and_cameras(new.train) == [(1, 1), (1, 1), (1, 2)]
    assert ids_and_cameras(new.query) == [(2, 1)] and ids_and_cameras(new.gallery) == [
        (2, 2),
        (3, 2),
    ]

    first = open_dataset("cuhk03-classic-labeled", tmp_path)
    assert (first.name, first.protocol) == ("cuhk03-classic-labeled@0", "cuhk03-classic")
    assert {item.pid for item in first.query} == {1002}
    assert first.query == first.gallery and len(first.query) == 3
    second = open_dataset("cuhk03-classic-labeled@1", tmp_path)
    assert {item.pid for item in second.query} == {1001, 2001}
    assert first.fingerprint != second.fingerprint


def test_cuhk03_np_can_be_read_from_its_folders(tmp_path: Path) -> None:
    touch(
        tmp_path / "cuhk03-np/detected",
        "bounding_box_train/0001_c1_1.png",
        "query/0003_c1_21.png",
        "bounding_box_test/0003_c2_22.png",
    )
    data = open_dataset("cuhk03-np-detected", tmp_path)
    assert (
        ids_and_cameras(data.train),
        ids_and_cameras(data.query),
        ids_and_cameras(data.gallery),
    ) == ([(1, 1)], [(3, 1)], [(3, 2)])


def test_500k_distractors_join_the_gallery_whatever_their_names(tmp_path: Path) -> None:
    touch(
        tmp_path / "Market-1501",
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "query/0001_c1s1_001051_00.jpg",
        "bounding_box_test/0001_c3s1_000451_01.jpg",
        "images/0000001.jpg",
        "images/x/anything.jpg",
    )
    data = open_dataset("market1501-500k", tmp_path)
    assert [item.role for item in data.gallery] == ["person", "distractor", "distractor"]
    manifest, _ = locate("market1501-500k", tmp_path)
    cameras = next(c for c in verify(manifest, data) if c.what == "cameras")
    assert cameras.found == 2


def test_cifar100_records_become_folders_of_classes(tmp_path: Path) -> None:
    root = tmp_path / "cifar-100-binary"
    root.mkdir()
    (root / "fine_label_names.txt").write_text("apple\nbear\n")
    record = np.zeros((2, 3074), np.uint8)
    record[:, 1] = [1, 0]
    record[0, 2:1026] = 250  # the red plane comes first
    record.tofile(root / "train.bin")
    record[:1].tofile(root / "test.bin")
    unpack_cifar100(root, on_progress=quiet)
    with Image.open(root / "train/bear/00000.png") as image:
        assert image.size == (32, 32) and image.getpixel((5, 5)) == (250, 0, 0)
    data = open_dataset("cifar100", tmp_path)
    assert (data.task, data.protocol) == ("classification", "")
    assert [item.pid for item in data.train] == [0, 1] and [i.pid for i in data.query] == [1]
    (root / "test.bin").write_bytes(b"half")
    with pytest.raises(DataError, match="has 4 bytes, expected N x 3,074"):
        unpack_cifar100(root, on_progress=quiet)
