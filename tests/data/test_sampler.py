"""Batches are a pure function of seed and epoch."""

from collections import Counter

import pytest

from reidkit.data.sampler import TrainBatches, epoch_batches
from reidkit.errors import DataError

LABELS = [0] * 9 + [1] * 2 + [2] * 4 + [3] * 5  # 9, 2, 4 and 5 images


def batches(kind: str, *, seed: int = 0, epoch: int = 0, batch: int = 8) -> list[list[int]]:
    return epoch_batches(
        LABELS,
        kind=kind,  # type: ignore[arg-type]
        batch=batch,
        samples_per_id=4,
        seed=seed,
        epoch=epoch,
    )


@pytest.mark.parametrize("kind", ["groups", "pk", "shuffle"])
def test_same_seed_and_epoch_same_batches_another_epoch_others(kind: str) -> None:
    assert batches(kind) == batches(kind)
    assert batches(kind) != batches(kind, epoch=1)
    assert batches(kind) != batches(kind, seed=1)


def test_groups_cut_each_id_into_fours_and_draw_small_ids_with_replacement() -> None:
    """9 -> 2 groups, 2 -> 1 with replacement, 4 -> 1, 5 -> 1: five groups, one batch of two."""
    drawn = batches("groups", batch=4)
    assert len(drawn) == 5
    counts = Counter(LABELS[group[0]] for group in drawn)
    assert counts == {0: 2, 1: 1, 2: 1, 3: 1}
    for group in drawn:
        assert len({LABELS[index] for index in group}) == 1
    whole = [index for group in drawn for index in group if LABELS[index] != 1]
    assert len(whole) == len(set(whole))


def test_pk_sees_every_id_once_with_k_images() -> None:
    (first, second) = batches("pk")
    counts = Counter(LABELS[index] for index in first + second)
    assert counts == {0: 4, 1: 4, 2: 4, 3: 4}
    large = [index for index in first + second if LABELS[index] != 1]
    assert len(large) == len(set(large))


def test_shuffle_sees_every_image_at_most_once_and_drops_the_rest() -> None:
    drawn = batches("shuffle")
    flat = [index for batch in drawn for index in batch]
    assert len(flat) == len(set(flat)) == 16  # 20 images, batches of 8


def test_too_few_images_for_a_batch_say_which_batch_would_do() -> None:
    with pytest.raises(DataError, match=r"fewer than one batch of 64.*--batch 20"):
        batches("groups", batch=64)


def test_a_run_can_begin_at_any_epoch_with_the_same_draws() -> None:
    def run(start: int) -> list[object]:
        return list(
            TrainBatches(
                LABELS,
                kind="groups",
                batch=8,
                samples_per_id=4,
                seed=5,
                epochs=4,
                start_epoch=start,
            )
        )

    assert run(0)[4:] == run(2)  # two batches an epoch
