"""Selection of clip frames by the authors' rules, checked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.choices import ClipRule
from reidkit.config import AugmentConfig, ClipConfig
from reidkit.data import clips as clip_rules  # a bare test_clips would be collected as a test
from reidkit.data.clips import sample_clip, split_tracklet, train_items
from reidkit.data.loading import TrainImages
from reidkit.data.sampler import SampleKey
from reidkit.preprocess import Preprocess
from reidkit.types import Dataset, Item, Sample, Tracklet


def sampled(n: int, T: int = 4, stride: int = 8) -> list[list[int]]:
    return [sample_clip(n, T=T, stride=stride, rng=np.random.default_rng(k)) for k in range(300)]


def test_long_tracklets_are_sampled_at_the_stride_from_a_uniform_start() -> None:
    """40 frames: starts 0 .. 40 - 24 - 1 = 15."""
    clips = sampled(40)
    assert all(np.diff(clip).tolist() == [8, 8, 8] for clip in clips)
    assert {clip[0] for clip in clips} == set(range(16))
    assert {clip[0] for clip in sampled(32)} == set(range(8))  # exactly T * stride


def test_short_tracklets_give_distinct_frames_and_the_shortest_repeat_theirs() -> None:
    for clip in sampled(31):
        assert clip == sorted(set(clip)) and len(clip) == 4 and clip[-1] < 31
    assert {tuple(clip) for clip in sampled(4)} == {(0, 1, 2, 3)}
    repeated = sampled(3)
    assert all(clip == sorted(clip) and len(clip) == 4 for clip in repeated)
    assert {frame for clip in repeated for frame in clip} == {0, 1, 2}
    assert sampled(1)[0] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("rule", "n", "clips"),
    [
        ("tclnet", 8, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("tclnet", 6, [(0, 1, 2, 3), (4, 5, 4, 5)]),
        ("tclnet", 3, [(0, 1, 2, 0)]),
        ("tclnet", 1, [(0, 0, 0, 0)]),
        ("bicnet", 6, [(0, 1, 2, 3), (4, 5, 0, 1)]),
        ("bicnet", 3, [(0, 1, 2, 0)]),
        ("ap3d", 5, [(0, 1, 2, 3, 4)]),
        ("ap3d", 33, [tuple(range(32)), (32,)]),
        ("first", 25, [(0, 8, 16, 24)]),
        ("first", 24, [(0, 4, 8, 12)]),
        ("first", 13, [(0, 4, 8, 12)]),
        ("first", 12, [(0, 2, 4, 6)]),
        ("first", 6, [(0, 1, 2, 3)]),
        ("first", 3, [(0, 1, 2, 0)]),
    ],
)
def test_test_time_clips_of_four(rule: ClipRule, n: int, clips: list[tuple[int, ...]]) -> None:
    assert clip_rules.test_clips(n, T=4, rule=rule) == clips


@pytest.mark.parametrize("rule", ["tclnet", "bicnet", "ap3d"])
def test_every_frame_is_in_some_clip(rule: ClipRule) -> None:
    for n in range(1, 70):
        clips = clip_rules.test_clips(n, T=4, rule=rule)
        assert {frame for clip in clips for frame in clip} == set(range(n))


def walk(name: str, n: int, pid: int = 1) -> Tracklet:
    return Tracklet(tuple(Sample(f"{name}/{k:03d}.png", pid, 1) for k in range(n)))


@pytest.mark.parametrize(
    ("n", "lengths"), [(10, [10]), (32, [32]), (63, [63]), (64, [32, 32]), (100, [32, 32, 36])]
)
def test_the_last_chunk_of_a_split_tracklet_gets_the_remainder(n: int, lengths: list[int]) -> None:
    whole = walk("a", n)
    chunks = split_tracklet(whole, 32)
    assert [len(chunk.frames) for chunk in chunks] == lengths
    assert tuple(frame for chunk in chunks for frame in chunk.frames) == whole.frames


def dataset(root: Path, *items: Item, dense: int = 0) -> Dataset:
    return Dataset("toy", root, items, (), (), "market", "", dense=dense)


def test_tracklets_are_split_only_if_the_data_set_is_dense(tmp_path: Path) -> None:
    image = Sample("x.png", 2, 1)
    assert train_items(dataset(tmp_path, walk("a", 70), image)) == [walk("a", 70), image]
    assert len(train_items(dataset(tmp_path, walk("a", 70), image, dense=32))) == 3


class ConstantMasks:
    """The mask of frame k has the values k to k + 3."""

    fingerprint = ""

    def read(self, paths: list[str]) -> np.ndarray:
        numbers = [int(path[-7:-4]) for path in paths]
        return np.stack([np.tile(np.arange(4, dtype=np.uint8), (8, 1)) + n for n in numbers])

    def sizes(self, paths: list[str]) -> np.ndarray:
        return np.array([[16, 8]] * len(paths))


def clips(root: Path, augment: AugmentConfig, *, frames: int = 12) -> TrainImages:
    """Frame k has grey level k, with a white left half."""
    for k in range(frames):
        pixels = np.full((16, 8, 3), k, np.uint8)
        pixels[:, :4] = 255
        (root / "a").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / f"a/{k:03d}.png")
    return TrainImages(
        [walk("a", frames)],
        root=root,
        preprocess=Preprocess(size=(16, 8), mean=(0, 0, 0), std=(1, 1, 1)),
        augment=augment,
        masks=ConstantMasks(),  # type: ignore[arg-type]
        clip=ClipConfig(frames=3, stride=2),
    )


def test_all_frames_of_a_clip_share_flip_and_erasing_and_masks_follow(tmp_path: Path) -> None:
    source = clips(tmp_path, AugmentConfig(flip=0.5, erase=1.0))
    flips = set()
    for seed in range(12):
        raw = source.batch([SampleKey(0, (seed, 0, k)) for k in (0, 1)])
        assert raw.pixels.shape == (2, 3, 16, 8, 3) and raw.masks is not None
        mirrored = [bool(frame[0, 0, 0] != 255) for frame in raw.pixels[0]]
        assert len(set(mirrored)) == 1
        flips.add(mirrored[0])
        shown = raw.pixels[0].amin((1, 2, 3))
        assert shown.diff().tolist() == [2, 2]  # the stride
        assert raw.mask_sizes is not None and raw.mask_sizes.shape == (2, 3, 2)
        left = raw.masks[0, :, 0, 3 if mirrored[0] else 0]
        assert left.tolist() == shown.tolist()  # each frame has its own mask, flipped with it
        images = source.finish(raw, torch.device("cpu")).images
        assert images.shape == (2, 3, 3, 16, 8)
        for erased in images[:, :, 1] == source.augment.erase_value[1]:
            assert torch.equal(erased[0], erased[1]) and torch.equal(erased[0], erased[2])
            assert 0 < erased[0].sum() < 16 * 8
    assert flips == {True, False}


def test_labels_follow_the_sorted_pids(tmp_path: Path) -> None:
    source = TrainImages(
        [Sample("a.png", 70, 1), Sample("b.png", 3, 1), Sample("c.png", 70, 2)],
        root=tmp_path,
        preprocess=Preprocess(),
        augment=AugmentConfig(),
        clip=ClipConfig(),
        masks=None,
    )
    assert (source.labels, source.num_ids, source.clip) == ([1, 0, 1], 2, None)
    assert source.path(SampleKey(1, (0, 0, 0))) == "b.png"


def test_images_among_tracklets_become_clips_of_one_repeated_frame(tmp_path: Path) -> None:
    source = clips(tmp_path, AugmentConfig(flip=0.0, erase=0.0), frames=1)
    source.items = [source.items[0].frames[0]]  # type: ignore[union-attr]
    raw = source.batch([SampleKey(0, (0, 0, 0))])
    assert torch.equal(raw.pixels[0, 0], raw.pixels[0, 2])
