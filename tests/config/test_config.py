"""Settings: layers of strict tables, later wins, mistakes are named with the nearest key."""

from pathlib import Path

import pytest

from reidkit.config import (
    Layer,
    RunConfig,
    default_preset,
    environment_layer,
    file_layer,
    list_presets,
    load_run_config,
    preset_layer,
    set_layer,
    to_table,
)
from reidkit.config.tables import from_table, nested, to_toml
from reidkit.errors import ConfigError


def refusal(*layers: Layer) -> str:
    with pytest.raises(ConfigError) as caught:
        load_run_config(layers)
    return str(caught.value)


def test_later_layers_win_key_by_key() -> None:
    config = load_run_config(
        [
            Layer("file", {"optim": {"lr": 1.0, "weight_decay": 0.25}}),
            Layer("flags", {"optim": {"lr": 2.0}}),
        ]
    )
    assert (config.optim.lr, config.optim.weight_decay) == (2.0, 0.25)


def test_an_unknown_key_names_its_file_and_the_nearest_key() -> None:
    message = refusal(Layer("iaunet.toml", {"optim": {"learning_rate": 1.0}}))
    assert message == "iaunet.toml: unknown key optim.learning_rate. Did you mean optim.lr?"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"optim": {"lr": "fast"}}, "x: optim: lr must be a number, got 'fast'"),
        ({"schedule": {"epochs": 1.5}}, "x: schedule: epochs must be a whole number, got 1.5"),
        ({"schedule": {"epochs": True}}, "epochs must be a whole number, got True"),
        ({"sampler": {"kind": "pkk"}}, "kind must be one of groups, pk, shuffle; got 'pkk'"),
        ({"input": {"size": [256]}}, "size must be a list of 2 whole numbers, got [256]"),
        ({"augment": {"flip": 1.5}}, "flip must lie in [0, 1], got 1.5"),
        ({"sampler": {"batch": 30}}, "batch 30 is not a multiple of samples_per_id 4"),
        ({"optim": 3}, "x: optim is a table: write optim.<key>"),
        ({"arch": {"backbone": "resnet9"}}, "backbone"),
        ({"arch": "iaunett"}, "Did you mean iaunet?"),
        ({"arch": {"nonsense": 1}}, "x: unknown key arch.nonsense"),
        ({"schedule": {"milestones": [40, 20]}}, "milestones must rise, got [40, 20]"),
    ],
)
def test_impossible_settings_are_refused(table: dict[str, object], expected: str) -> None:
    assert expected in refusal(Layer("x", table))


def test_set_reads_toml_values_and_bare_strings() -> None:
    layer = set_layer(["optim.lr=3e-4", "arch.backbone=resnet18", "arch.stages=[2]"])
    config = load_run_config([layer])
    assert config.optim.lr == 3e-4
    assert (config.arch.options.backbone, config.arch.options.stages) == ("resnet18", (2,))
    with pytest.raises(ConfigError, match=r"write table\.key=value"):
        set_layer(["optim.lr"])


def test_environment_settings_have_a_double_underscore() -> None:
    layer = environment_layer({"REIDKIT_OPTIM__LR": "0.5", "REIDKIT_DATA": "/data", "PATH": "x"})
    assert layer.table == {"optim": {"lr": 0.5}}


def test_a_run_can_be_read_back_from_its_config_file(tmp_path: Path) -> None:
    config = load_run_config([set_layer(["arch.backbone=resnet18", "augment.crop=translate"])])
    (tmp_path / "config.toml").write_text(to_toml(to_table(config)))
    assert load_run_config([file_layer(tmp_path / "config.toml")]) == config


def test_a_file_that_is_not_toml_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("lr = = 3")
    with pytest.raises(ConfigError, match=r"bad.toml is not TOML"):
        file_layer(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        file_layer(tmp_path / "absent.toml")


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_loads(name: str) -> None:
    config = load_run_config([preset_layer(name)])
    assert isinstance(config, RunConfig)


def test_the_preset_of_a_data_set_comes_before_that_of_the_architecture() -> None:
    assert default_preset("iaunet", "nobody-knows-it") == "iaunet"
    assert default_preset("nobody-knows-it", "market1501") is None


def test_the_iaunet_recipe_is_the_reference_one() -> None:
    """REFERENCE_FACTS 1.1: Adam 3.5e-4, /10 at 20 and 40 of 60 epochs, 64 = 16 x 4."""
    config = load_run_config([preset_layer("iaunet")])
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 3.5e-4, 5e-4)
    assert (config.schedule.epochs, config.schedule.milestones) == (60, (20, 40))
    assert (config.sampler.kind, config.sampler.batch, config.sampler.samples_per_id) == (
        "groups",
        64,
        4,
    )
    assert (config.loss.smoothing, config.loss.margin, config.loss.part_attention) == (
        0.1,
        0.3,
        0.5,
    )
    assert config.input.interpolation == "bicubic"


def test_nested_refuses_a_value_that_is_also_a_table() -> None:
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    with pytest.raises(ConfigError, match="a is a value, not a table"):
        nested({"a": 1, "a.b": 2})


def test_missing_keys_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"x: missing key where, table"):
        from_table(Layer, {}, where="x")
