"""Settings: layers of strict tables; later ones win, errors name the key and the nearest one."""

import dataclasses
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from reidkit.config import (
    Layer,
    RunConfig,
    check_layers,
    default_preset,
    environment_layer,
    file_layer,
    from_table,
    list_presets,
    load_run_config,
    nested,
    preset_layer,
    read_toml,
    require,
    set_layer,
    to_table,
    to_toml,
)
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
        ({"optim": {"lr": "fast"}}, "x: optim.lr must be a number, got 'fast'"),
        ({"optim": {"lr": True}}, "x: optim.lr must be a number, got True"),
        ({"schedule": {"epochs": 1.5}}, "x: schedule.epochs must be a whole number, got 1.5"),
        ({"schedule": {"epochs": "1"}}, "x: schedule.epochs must be a whole number, got '1'"),
        ({"schedule": {"epochs": True}}, "x: schedule.epochs must be a whole number, got True"),
        ({"optim": {"nesterov": 1}}, "x: optim.nesterov must be true or false, got 1"),
        ({"weights": 3}, "x: weights must be a string, got 3"),
        (
            {"sampler": {"kind": "pkk"}},
            "x: sampler.kind must be one of groups, pk, shuffle; got 'pkk'",
        ),
        ({"input": {"size": [256]}}, "x: input.size must be a list of 2 whole numbers, got [256]"),
        ({"input": {"size": 256}}, "x: input.size must be a list of 2 whole numbers, got 256"),
        (
            {"schedule": {"milestones": [20, "40"]}},
            "x: schedule.milestones must be a list of whole numbers, got [20, '40']",
        ),
        ({"augment": {"flip": 1.5}}, "x: augment.flip must lie in [0, 1], got 1.5"),
        (
            {"sampler": {"batch": 30}},
            "x: sampler.batch must be a multiple of sampler.samples_per_id (4), got 30",
        ),
        ({"optim": 3}, "x: optim must be a table, got 3"),
        ({"lr": 3}, "x: unknown key lr."),
        ({"arch": 3}, "x: arch.name must be a string"),
        ({"arch": {"backbone": "resnet9"}}, "x: arch.backbone must be one of resnet18, "),
        ({"arch": "iaunett"}, "Did you mean iaunet?"),
        ({"arch": {"back_bone": 1}}, "x: unknown key arch.back_bone. Did you mean arch.backbone?"),
        (
            {"schedule": {"milestones": [40, 20]}},
            "x: schedule.milestones must be increasing, got [40, 20]",
        ),
        ({"input": {"size": [0, 128]}}, "x: size must be 1 to 4096 pixels, got [0, 128]"),
    ],
)
def test_invalid_settings_are_refused(table: dict[str, object], expected: str) -> None:
    assert expected in refusal(Layer("x", table))


def test_a_whole_number_is_a_number() -> None:
    config = load_run_config([Layer("x", {"optim": {"lr": 1}})])
    assert config.optim.lr == 1.0 and isinstance(config.optim.lr, float)


def test_a_layer_alone_may_contradict_constraints_that_the_layers_together_fulfil() -> None:
    layers = [
        Layer("a", {"sampler": {"batch": 30}}),
        Layer("b", {"sampler": {"samples_per_id": 5}}),
    ]
    assert load_run_config(layers).sampler.batch == 30
    message = refusal(*layers, Layer("c", {"sampler": {"samples_per_id": 7}}))
    assert message.startswith("c: sampler.batch must be a multiple")


def test_set_reads_toml_values_and_bare_strings() -> None:
    layer = set_layer(["optim.lr=3e-4", "arch.backbone=resnet18", "arch.stages=[2]"])
    config = load_run_config([layer])
    assert config.optim.lr == 3e-4
    assert (config.arch.options.backbone, config.arch.options.stages) == ("resnet18", (2,))
    with pytest.raises(ConfigError, match=r"expected table\.key=value, as in --set optim\.lr=3e-4"):
        set_layer(["optim.lr"])


def test_environment_settings_have_a_double_underscore() -> None:
    layer = environment_layer({"REIDKIT_OPTIM__LR": "0.5", "REIDKIT_DATA": "/data", "PATH": "x"})
    assert layer.table == {"optim": {"lr": 0.5}}


def test_a_run_can_be_read_back_from_its_config_file(tmp_path: Path) -> None:
    config = load_run_config([set_layer(["arch.backbone=resnet18", "augment.crop=translate"])])
    (tmp_path / "config.toml").write_text(to_toml(to_table(config)))
    assert load_run_config([file_layer(tmp_path / "config.toml")]) == config


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("lr = = 3")
    with pytest.raises(ConfigError, match=r"bad.toml is not TOML"):
        file_layer(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        file_layer(tmp_path / "absent.toml")


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_loads(name: str) -> None:
    config = load_run_config([preset_layer(name)])
    assert isinstance(config, RunConfig)


def test_unknown_names_fall_back_to_the_general_preset_or_none() -> None:
    assert default_preset("iaunet", "unknown") == "iaunet"
    assert default_preset("unknown", "market1501") is None


def test_the_iaunet_preset_is_the_reference_recipe() -> None:
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


@dataclass(frozen=True)
class Entry:
    name: str
    count: int | Literal["unknown"] = 0
    limit: int | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        require(self.name != "", "name must not be empty")


@dataclass(frozen=True)
class Listing:
    title: str
    owner: str
    entries: dict[str, Entry] = field(default_factory=dict)
    rows: tuple[Entry, ...] = ()
    note: str = ""


def listing(**table: object) -> Listing:
    return from_table(Listing, {"title": "t", "owner": "o", **table}, where="f.toml")


def test_missing_keys_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"^f.toml: missing key title, owner$"):
        from_table(Listing, {}, where="f.toml")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"entries": {"a": {"name": 1}}}, "entries.a.name must be a string, got 1"),
        (
            {"entries": {"a": {"name": "x", "cuont": 1}}},
            "unknown key entries.a.cuont. Did you mean",
        ),
        ({"entries": {"a": {}}}, "missing key entries.a.name"),
        ({"entries": {"a": 3}}, "entries.a must be a table, got 3"),
        ({"rows": [{"name": "x"}, {"name": 2}]}, "rows[1].name must be a string, got 2"),
        (
            {"entries": {"a": {"name": "x", "count": "many"}}},
            "entries.a.count must be a whole number or 'unknown', got 'many'",
        ),
        ({"entries": {"a": {"name": "x", "limit": 1.0}}}, "limit must be a whole number, got 1.0"),
        ({"entries": {"a": {"name": "x", "folder": 1}}}, "folder must be a path, got 1"),
        ({"entries": {"a": {"name": ""}}}, "name must not be empty"),
    ],
)
def test_errors_in_inner_tables_name_the_whole_key(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        listing(**table)
    assert str(caught.value).startswith("f.toml: ") and message in str(caught.value)


def test_what_is_written_as_toml_is_read_back_equal(tmp_path: Path) -> None:
    entries = {
        "odd key": Entry('quo"te\n', "unknown", None, Path("a/b c")),
        "ünïcode": Entry("日本", 3, 10**12),
    }
    before = Listing("t", "o", entries, (Entry("x"), Entry("y", limit=-1)))
    (tmp_path / "f.toml").write_text(to_toml(dataclasses.asdict(before)), "utf-8")
    assert from_table(Listing, read_toml(tmp_path / "f.toml"), where="f.toml") == before
    values = {"f": [0.1, 1e-300, float("inf")], "deep": {"empty": {}, "t": (1, (2.5, "x"))}}
    written = tomllib.loads(to_toml({**values, "none": None}))
    assert written == {**values, "deep": {"empty": {}, "t": [1, [2.5, "x"]]}}


def test_importing_settings_does_not_load_pydantic_or_torch() -> None:
    code = "import sys, reidkit.config; sys.exit(bool({'pydantic', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_invalid_value_is_attributed_to_the_layer_that_set_it() -> None:
    layers = [
        Layer("iaunet.toml", {"schedule": {"epochs": 5}}),
        Layer("flags", {"schedule": {"epochs": 0}}),
        Layer("later", {"seed": 3}),
    ]
    with pytest.raises(ConfigError, match=r"^flags: schedule\.epochs must be positive"):
        load_run_config(layers)


def test_settings_can_be_read_any_number_of_times_in_the_same_memory() -> None:
    layers = [Layer("flags", {"arch": {"name": "iaunet"}, "optim": {"lr": 0.1}})]

    def read() -> int:
        check_layers(layers)
        load_run_config(layers)
        return len(object.__subclasses__())  # a schema of a table is a class

    read()
    assert read() == read()
