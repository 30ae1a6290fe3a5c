"""What the rows of the papers' tables train: their networks, losses and published numbers."""

from __future__ import annotations

import pytest

from reidkit.config import RunConfig
from reidkit.reproduce.runs import Runs, row_settings
from reidkit.reproduce.tables import Row, find_table, read_tables


def settings(row: Row, dataset: str = "market1501") -> RunConfig:
    return row_settings(row, dataset, Runs(), seed=0)


def rows(table: str) -> dict[str, Row]:
    return {row.name: row for row in find_table(table).rows}


@pytest.mark.parametrize(
    ("dataset", "numbers", "tables"),
    [
        ("market1501", (88.2, 95.0), 3),  # tables I, VI, VII
        ("market1501", (86.7, 94.8), 3),  # VII twice, X
        ("market1501", (86.5, 94.6), 2),  # VII, IX
        ("market1501", (86.3, 94.4), 2),
        ("mars", (85.0, 90.2), 5),  # III, VI, VIII twice, X
        ("mars", (84.9, 89.6), 3),  # VI, VIII, IX
    ],
)
def test_a_number_that_iaunet_publishes_in_several_tables_is_of_one_network(
    dataset: str, numbers: tuple[float, float], tables: int
) -> None:
    found = [
        settings(row, dataset)
        for table in read_tables("iaunet")
        for row in table.rows
        if tuple(row.published(dataset).get(k) for k in ("mAP", "rank-1")) == numbers
    ]
    assert len(found) == tables
    assert all(config == found[0] for config in found)


def test_blocks_of_all_rows_of_iaunet_stand_after_the_stage() -> None:
    for table in read_tables("iaunet"):
        for row in table.rows:
            options = settings(row, next(iter(row.paper))).arch.options
            assert getattr(options, "placement", "after") == "after"


def test_cifar_rows_are_trained_from_scratch_by_both_readings_of_the_recipe() -> None:
    """The plain ResNet-50, quoted from MLFN, and one row of IAUnet follow MLFN's recipe."""
    table = find_table("iaunet/table5").rows
    configs = [settings(row, "cifar100") for row in table]
    assert [row.published("cifar100")["error"] for row in table] == [30.21, 20.3, 20.3]
    assert [config.weights for config in configs] == ["none"] * 3
    assert [config.arch.options.stages for config in configs] == [(), (2, 3), (2, 3)]
    assert [config.loss.triplet for config in configs] == [0, 1, 0]


def test_pfsas_backbone_rows_have_one_loss_of_weight_1() -> None:
    for name in ("Backbone", "Backbone SA1"):
        loss = settings(rows("pfsa/table2")[name]).loss
        assert (loss.identity, loss.parts_identity, loss.deep) == (1, 0, 0)
    for name in ("Backbone+DS", "Backbone+P+DS SA2"):
        assert settings(rows("pfsa/table2")[name]).loss.identity == 0.2


def test_deep_supervision_of_pfsa_sums_over_positions_only_where_attention_weighs_them() -> None:
    """A sum over 3072 positions without weights is too large for the published learning rate."""
    for table in read_tables("pfsa"):
        for row in table.rows:
            options = settings(row).arch.options
            if options.deep_supervision:
                expected = "sum" if options.deep_attention else "mean"
                assert options.deep_pooling == expected


def test_the_sigma_sweep_contains_the_published_network_of_table_4c() -> None:
    sweep = rows("ianet/figure7")
    sigmas = []
    for row in sweep.values():
        options = settings(row).arch.options
        assert options.relations == "location" and options.stages == (3,)
        assert options.sigma_y[2] == 2 * options.sigma_x[2]
        sigmas.append(options.sigma_x[2])
    assert sigmas == [1, 2, 5, 10, 20]
    location = rows("ianet/table4c")["Location"]
    assert settings(sweep["sigma=5"]) == settings(location)
    assert sweep["sigma=5"].paper == location.paper
    assert [row.name for row in sweep.values() if row.paper] == ["sigma=5"]
