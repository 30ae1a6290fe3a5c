"""A report is one page that loads nothing, escapes every name and fits both colour schemes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reidkit.checkpoint import Header
from reidkit.config import Layer, load_run_config, set_layer, to_table
from reidkit.evaluation import Evaluation, EvaluationSettings, evaluate_features
from reidkit.features import Features
from reidkit.preprocess import Preprocess
from reidkit.types import Dataset, Sample
from reidkit.visualize.ranked_lists import RankedRow, Tile
from reidkit.visualize.report import ReportSource, write_report
from reidkit.visualize.report_attention import overlay
from reidkit.visualize.report_charts import MAX_EPOCHS, distance_chart, training_charts
from reidkit.visualize.report_settings import commands, compare_with_recipe
from reidkit.visualize.svg import VARIABLES

EVIL = '<img src=x onerror="alert(1)">&'
METRICS: dict[str, Any] = {
    **{"protocol": "market", "metric": "cosine", "ap": "step", "mAP": 0.5, "mINP": 0.25},
    "cmc": [0.6] * 10,
}
HEADER = Header(
    arch="iaunet",
    arch_config={},
    preprocess=Preprocess(),
    num_ids=751,
    dataset=f"market{EVIL}",
    fingerprint="f" * 64,
)


def epoch(number: int, **more: Any) -> dict[str, Any]:
    losses = {"identity": 2.0, "total": 2.0}
    return {"epoch": number, "lr": 1e-3, "losses": losses, "accuracy": 0.5, **more}


def page(tmp_path: Path, **fields: Any) -> str:
    source = ReportSource(**{"run": f"runs/{EVIL}", "header": HEADER, "sha256": "0" * 64, **fields})
    write_report(tmp_path / "report.html", source)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """60 queries of 20 identities and 200 gallery images of 3 cameras."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 16))

    def features(pids: np.ndarray[Any, Any]) -> Features:
        N = len(pids)
        return Features(
            (centres[pids] + rng.normal(size=(N, 16))).astype(np.float32),
            pids.astype(np.int64),
            rng.integers(1, 4, N),
            tuple(f"{k}.png" for k in range(N)),
            np.zeros(N, np.uint8),
            {"dataset": "market", "protocol": "market"},
        )

    settings = EvaluationSettings(thresholds=True, by_camera=True)
    query, gallery = (features(np.arange(N) % 20) for N in (60, 200))
    return evaluate_features(query, gallery, settings)


def test_epochs_are_counted_from_1() -> None:
    for first in (0, 1):
        losses, *_ = training_charts([epoch(number) for number in range(first, first + 60)])
        labels = re.findall(r"<text[^>]*>([\d.]+)</text>", losses.svg)
        ticks = [int(label) for label in labels if "." not in label]
        assert 10 in ticks and 60 in ticks and 0 not in ticks


def test_a_full_report_has_every_section_and_loads_nothing(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    image = tmp_path / "a&b.png"
    Image.new("RGB", (64, 128), "grey").save(image)
    tile = Tile(image, ("1. 0.1", "id 1, camera 2"), "wrong", 2)
    pairs = evaluation.plain.pairs
    assert pairs is not None
    data = Dataset(
        "market",
        tmp_path,
        (Sample("a.png", 1, 1),),
        (Sample("b.png", 2, 1),),
        (Sample("c.png", 2, 2), Sample("d.png", -1, 2, "junk")),
        "market",
        "f" * 64,
    )
    text = page(
        tmp_path,
        run="runs/x",
        header=dataclasses.replace(HEADER, dataset="market1501"),
        history=[epoch(1), epoch(2, test=METRICS)],
        evaluation=evaluation,
        point=pairs.operating_point(0.01),
        dataset=data,
        lists=[RankedRow(dataclasses.replace(tile, verdict="unknown"), (tile,), "b.png", 0.1)],
        settings=compare_with_recipe({}, arch="iaunet", dataset="market1501"),
        commands=["reidkit train --dataset 'a & b'"],
    )
    sections = re.findall(r'<h2 id="(\w+)"', text)
    assert sections == [
        *("results", "cameras", "worst", "training", "data", "settings", "environment", "repeat"),
    ]
    assert all(f'href="#{name}"' in text for name in sections)
    assert "default-src 'none'" in text and "<script" not in text
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(.{5})", text)
    assert {link[0] for link in links} <= {"#", "d"}  # within the page, or a data URL
    assert text.count("<svg") == 6 and "%.1f" % (100 * evaluation.plain.mAP) in text
    assert '<td class="number">1</td><td class="number">0</td></tr>' in text  # junk of the gallery


def test_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    results = [{**METRICS, "dataset": EVIL, "rule": EVIL}]
    text = page(tmp_path, results=results, commands=[EVIL], missing=[EVIL], log=EVIL)
    assert "<img" not in text and text.count("&lt;img src=x") >= 6


def test_charts_take_their_colours_from_the_page() -> None:
    charts = training_charts([epoch(k, test=METRICS) for k in (1, 2)])
    text = " ".join(str(chart.svg) for chart in charts)
    assert "var(--series-1)" in text and "var(--ink)" in text
    assert not any(placeholder in text for placeholder in VARIABLES)
    assert not re.search(r"(fill|stroke): #(?!none)", text)
    assert "font-family" not in text and "width=" not in text.partition(">")[0]


def test_a_long_history_is_thinned_out_and_keeps_its_ends() -> None:
    long = training_charts([epoch(k) for k in range(1, 6001)])
    short = training_charts([epoch(k) for k in range(1, MAX_EPOCHS + 1)])
    for chart, reference in zip(long, short, strict=True):
        assert len(chart.svg) < 2 * len(reference.svg)
    assert ">6000<" in long[0].svg and training_charts([]) == []


def test_the_two_histograms_differ_without_colour(evaluation: Evaluation) -> None:
    assert evaluation.plain.pairs is not None
    svg = distance_chart(evaluation.plain.pairs, evaluation.plain.pairs.operating_point(0.01)).svg
    assert "<pattern" in svg and "url(#" in svg  # one is hatched


def test_without_evaluation_stored_results_are_shown_once(tmp_path: Path) -> None:
    header = dataclasses.replace(HEADER, metrics={**METRICS, "chosen_by": "test set"})
    assert "Not evaluated." in page(tmp_path)
    assert ">50.0<" in page(tmp_path, header=header)
    stored = {**METRICS, "dataset": "own", "rule": "own rule", "mAP": 0.9}
    stored["intervals"] = {"mAP": {"low": 0.85, "high": 0.95}}
    text = page(tmp_path, header=header, results=[stored])
    assert "85.0 to 95.0" in text and ">90.0<" in text and ">50.0<" not in text


def test_re_ranking_has_a_row_and_a_curve_of_its_own(tmp_path: Path) -> None:
    stored = {**METRICS, "dataset": "own", "rule": "r", "reranked": {**METRICS, "mAP": 0.75}}
    text = page(tmp_path, results=[stored])
    assert ">r, re-ranked<" in text and ">75.0<" in text
    assert ">ranking by distance<" in text and ">re-ranked<" in text


def test_a_classifier_is_reported_by_its_accuracy(tmp_path: Path) -> None:
    metrics = {"task": "classification", "top1": 0.7, "top5": 0.9, "images": 10}
    header = dataclasses.replace(HEADER, metrics={**metrics, "chosen_by": "test set"})
    text = page(tmp_path, header=header, history=[epoch(1, test=metrics)])
    assert "top-1" in text and ">70.0<" in text and "mAP" not in text


def run_table(*assignments: str) -> dict[str, Any]:
    layers = [Layer("run", {"arch": {"name": "baseline"}}), set_layer(assignments)]
    return to_table(load_run_config(layers))


def test_settings_that_differ_from_the_recipe_come_first() -> None:
    recipe = run_table()
    settings = compare_with_recipe(recipe, arch="baseline", dataset="market1501")
    assert settings.recipe == "iaunet"
    changed = compare_with_recipe(
        run_table("optim.lr=0.5", "arch.backbone=resnet18", "schedule.milestones=[3]"),
        arch="baseline",
        dataset="market1501",
    )
    extra = {value.key for value in changed.different} - {v.key for v in settings.different}
    assert {"optim.lr", "arch.backbone"} <= extra
    assert changed.values[0].differs and not changed.values[-1].differs
    assert len(changed.values) == len(settings.values)


def test_the_command_that_repeats_a_run_has_its_settings() -> None:
    import shlex

    from reidkit.cli.run_settings import ConfigOverrides, load_settings

    table = run_table(
        "optim.lr=0.5", 'weights="none"', "input.size=[64, 32]", "init=it's here.safetensors"
    )
    settings = compare_with_recipe(table, arch="baseline", dataset="market1501")
    (train, *_) = commands(
        settings, table, arch="baseline", dataset="market1501", data="data/my set"
    )
    words = shlex.split(train)
    assert words[:6] == ["reidkit", "train", "--arch", "baseline", "--dataset", "data/my set"]
    assignments = tuple(words[7::2])
    overrides = ConfigOverrides({"arch.name": "baseline"}, None, None, assignments)
    assert to_table(load_settings("market1501", overrides)) == table


def test_settings_of_another_version_are_shown_as_they_are() -> None:
    table = {"arch": {"name": "baseline"}, "optim": {"lr": 1.0, "gone": 3}}
    settings = compare_with_recipe(table, arch="baseline", dataset="market1501")
    assert {(v.key, v.value, v.recipe) for v in settings.values} >= {("optim.gone", "3", "")}


def test_an_overlay_is_bright_where_attention_is() -> None:
    attention = np.zeros((8, 4), np.float32)
    attention[2:4] = 1
    shown = np.asarray(overlay(np.full((8, 4, 3), 100, np.uint8), attention)).sum(-1)
    assert shown[2:4].min() > 2 * shown[4:].max() and np.ptp(shown[4:]) == 0
