"""Batches are a pure function of seed and epoch; shards divide them by identity."""

from collections import Counter

import pytest

from reidkit.choices import SamplerKind
from reidkit.config import SamplerConfig
from reidkit.data.sampler import SampleKey, TrainBatches, epoch_batches
from reidkit.errors import DataError

LABELS = [0] * 9 + [1] * 2 + [2] * 4 + [3] * 5  # 9, 2, 4 and 5 images


def batches(kind: SamplerKind, *, seed: int = 0, epoch: int = 0, batch: int = 8) -> list[list[int]]:
    return epoch_batches(LABELS, SamplerConfig(kind, batch), seed=seed, epoch=epoch)


@pytest.mark.parametrize("kind", ["groups", "pk", "shuffle"])
def test_seed_and_epoch_determine_the_batches(kind: SamplerKind) -> None:
    assert batches(kind) == batches(kind)
    assert batches(kind) != batches(kind, epoch=1)
    assert batches(kind) != batches(kind, seed=1)


def test_groups_are_of_one_identity_and_small_ones_are_sampled_with_replacement() -> None:
    """9 -> 2 groups, 2 -> 1 with replacement, 4 -> 1, 5 -> 1: five groups, one batch of two."""
    for seed in range(10):
        sampled = batches("groups", batch=4, seed=seed)
        assert len(sampled) == 5
        counts = Counter(LABELS[group[0]] for group in sampled)
        assert counts == {0: 2, 1: 1, 2: 1, 3: 1}
        for group in sampled:
            assert len({LABELS[index] for index in group}) == 1
        whole = [index for group in sampled for index in group if LABELS[index] != 1]
        assert len(whole) == len(set(whole))


def test_pk_sees_every_id_once_with_k_images() -> None:
    (first, second) = batches("pk")
    counts = Counter(LABELS[index] for index in first + second)
    assert counts == {0: 4, 1: 4, 2: 4, 3: 4}
    large = [index for index in first + second if LABELS[index] != 1]
    assert len(large) == len(set(large))


def test_shuffle_sees_every_image_at_most_once_and_drops_the_rest() -> None:
    sampled = batches("shuffle")
    flat = [index for batch in sampled for index in batch]
    assert len(flat) == len(set(flat)) == 16  # 20 images, batches of 8


def test_too_few_images_for_a_batch_suggest_a_smaller_batch() -> None:
    with pytest.raises(DataError, match=r"fewer than one batch of 64.*--batch 20"):
        batches("groups", batch=64)


def run(start: tuple[int, int] = (0, 0), shard: tuple[int, int] = (0, 1)) -> list[list[SampleKey]]:
    sampler = SamplerConfig("groups", 8)
    return list(TrainBatches(LABELS, sampler, seed=5, epochs=4, start=start, shard=shard))


def test_a_run_can_start_at_any_step_with_the_same_samples_and_seeds() -> None:
    whole = run()
    assert len(whole) == 8 and all(len(batch) == 8 for batch in whole)  # two batches an epoch
    assert run(start=(2, 0)) == whole[4:]
    assert run(start=(1, 1)) == whole[3:]
    assert whole[3][2].seed == (5, 1, 8 + 2)  # run's seed, epoch, position in the epoch


def test_shards_divide_a_batch_and_keep_groups_whole() -> None:
    first, second = run(shard=(0, 2)), run(shard=(1, 2))
    assert [a + b for a, b in zip(first, second, strict=True)] == run()
    assert all(len({LABELS[key.index] for key in batch}) == 1 for batch in first + second)
