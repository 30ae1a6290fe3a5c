"""A model card states what its checkpoint contains, and nothing that it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from reidkit import checkpoint
from reidkit.checkpoint import Header
from reidkit.data.manifest import list_manifests, load_manifest
from reidkit.models.cost import count_parameters
from reidkit.preprocess import Preprocess
from reidkit.visualize.model_card import CardSource, model_card, rule_of

HEADER = Header(
    arch="iaunet",
    arch_config={"backbone": "resnet18", "stages": [2]},
    preprocess=Preprocess(size=(64, 32), channels="bgr"),
    num_ids=751,
    dataset="market1501",
    fingerprint="f" * 64,
    recipe={
        "optim": {"name": "adam", "lr": 3.5e-4},
        "schedule": {"epochs": 60},
        "weights": "/home/me/resnet18.pth",
        "seed": 7,
        "precision": "fp32",
    },
    metrics={
        "epoch": 50,
        "chosen_by": "test set",
        "protocol": "market",
        "metric": "cosine",
        "ap": "step",
        "mAP": 0.8123,
        "mINP": 0.5,
        "cmc": [0.9, 0.9, 0.9, 0.9, 0.96, 0.96, 0.96, 0.96, 0.96, 0.98],
    },
)


def card(header: Header = HEADER, **fields: Any) -> str:
    return model_card(CardSource("model.safetensors", "a" * 64, header, **fields))


def with_metrics(**changes: Any) -> Header:
    return dataclasses.replace(HEADER, metrics={**HEADER.metrics, **changes})


def test_the_rule_of_metrics_names_only_what_they_state() -> None:
    assert rule_of({"protocol": "market", "metric": "cosine"}) == "protocol market, cosine"
    assert rule_of({"protocol": "market", "ap": "step"}) == "protocol market, step AP"


def test_the_card_states_network_input_and_training() -> None:
    text = card()
    network = checkpoint.build(HEADER)
    assert text.startswith("# iaunet on market1501\n")
    for line in (
        f"| sha256 | `{'a' * 64}` |",
        '| options | `backbone = "resnet18"`, `stages = [2]` |',
        "| input | image, 64x32 (height x width), BGR |",
        f"| embedding | {network.embedding_dim} numbers |",
        "| identities | 751 |",
        f"| fingerprint | `{'f' * 64}` |",
        '| optim | `name = "adam"`, `lr = 0.00035` |',
        "| seed | `7` |",
        "| precision | `fp32` |",
        "| epoch | 50 of 60 |",
    ):
        assert line in text
    assert f"{count_parameters(network):,} with the classifier" in text


def test_a_checkpoint_chosen_by_the_test_set_is_called_optimistic() -> None:
    assert "the test set, so its results on the test set are optimistic" in card()
    held_out = with_metrics(chosen_by="10% of the training identities, held out")
    assert "optimistic" not in card(held_out)


def test_the_card_contains_no_path_of_the_machine() -> None:
    assert "/home/me" not in card()
    assert "| initial weights | `resnet18.pth` |" in card()


def test_without_stored_results_those_of_training_are_listed() -> None:
    assert (
        "| market1501 | protocol market, cosine, step AP | 81.2 | 50.0 | 90.0 | 96.0 | 98.0 |"
        in card()
    )


def test_scores_of_held_out_identities_are_not_those_of_the_test_set() -> None:
    held_out = {"chosen_by": "10% of the training identities, held out"}
    assert "| market1501, held-out training identities |" in card(with_metrics(**held_out))
    both = with_metrics(**held_out, validation=HEADER.metrics)
    assert "| market1501 |" in card(both) and "held-out training" not in card(both)


def test_stored_results_have_intervals_and_a_row_for_re_ranking_without_repetition() -> None:
    plain = {
        **HEADER.metrics,
        "dataset": "msmt17@v1",
        "rule": "protocol market, cosine, step AP, flip",
        "mAP": 0.25,
        "intervals": {"mAP": {"low": 0.2, "high": 0.3}},
    }
    reranked = {**plain, "reranked": {**HEADER.metrics, "mAP": 0.35}}
    rows = [line for line in card(results=[plain, reranked]).splitlines() if "msmt17" in line]
    start = "| msmt17@v1 | protocol market, cosine, step AP, flip"
    assert rows == [
        f"{start} | 25.0 (20.0 to 30.0) | 50.0 | 90.0 | 96.0 | 98.0 |",
        f"{start}, re-ranked | 35.0 | 50.0 | 90.0 | 96.0 | 98.0 |",
    ]


def test_the_licence_of_the_data_comes_from_its_manifest() -> None:
    manifest = load_manifest(list_manifests()["market1501"])
    text = card(manifest=manifest)
    assert f"| licence of the data | {manifest.licence} |" in text
    assert f"Licence of the training data: {manifest.licence}." in text
    assert f"[Market-1501]({manifest.home}) (`market1501`)" in text
    assert "| licence of the data | not known; ask the owner of the data |" in card()


def test_pretrained_weights_are_named_among_the_licences() -> None:
    assert "pretrained weights, which have terms of their own" in card()
    scratch = dataclasses.replace(HEADER, recipe={**HEADER.recipe, "weights": "none"})
    assert "pretrained" not in card(scratch) and "| initial weights | none, random |" in card(
        scratch
    )


def test_synthetic_training_data_are_declared() -> None:
    text = card(dataclasses.replace(HEADER, synthetic=True))
    assert "Trained on synthetic people" in text
    assert "not comparable with published ones" in text
    assert "ynthetic" not in card()


def test_the_training_data_of_imported_weights_are_not_known() -> None:
    imported = Header(
        arch="baseline",
        arch_config={"backbone": "resnet18"},
        preprocess=Preprocess(),
        num_ids=0,
        recipe={"imported": {"file": "theirs.pth", "format": "torchreid"}},
    )
    text = card(imported)
    assert text.startswith("# baseline\n")
    assert "| imported from | `theirs.pth`, weights in the format torchreid |" in text
    assert "| training data | not known |" in text and "Not evaluated." in text


def test_the_cost_of_a_video_network_is_that_of_a_clip() -> None:
    video = dataclasses.replace(HEADER, frames=4, stride=8, arch_config={"stages": [2]})
    text = card(video)
    assert "G for one clip of 4 frames" in text
    assert "clip of 4 frames, every 8th frame in training" in text
    assert "--tracklets tracklets" in text


def test_a_classifier_is_not_described_as_re_identification() -> None:
    header = dataclasses.replace(
        HEADER,
        dataset="cifar100",
        metrics={"task": "classification", "top1": 0.8, "top5": 0.95, "images": 10000},
    )
    text = card(header)
    assert "person re-identification" not in text
    assert "| data set | rule | top-1 | top-5 |" in text and "| 80.0 | 95.0 |" in text


@pytest.mark.parametrize("text", ["two\nlines", "a|b"])
def test_titles_of_data_sets_do_not_break_tables(text: str) -> None:
    manifest = load_manifest(list_manifests()["market1501"])
    lines = card(manifest=dataclasses.replace(manifest, licence=text)).splitlines()
    row = next(line for line in lines if line.startswith("| licence of the data |"))
    assert row.replace("\\|", "").count("|") == 3
