"""reidkit models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.choices import CostTable
from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json

if TYPE_CHECKING:
    from reidkit.registry import ArchSpec

SetArchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="arch.KEY=VALUE", help="Set an option of the architecture; repeatable."
    ),
]


def parse_arch_options(assignments: Sequence[str] | None) -> dict[str, Any]:
    """["arch.stages=[2]"] -> {"stages": [2]}."""
    from reidkit.config import set_layer
    from reidkit.errors import ConfigError

    table = set_layer(assignments or ()).table
    others = sorted(set(table) - {"arch"})
    if others:
        raise ConfigError(f"--set {others[0]}: expected an architecture option, arch.KEY=VALUE")
    options: dict[str, Any] = table.get("arch", {})
    return options


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Architecture to show with its options.", show_default="list all"),
    ] = None,
    set_: SetArchOption = None,
    table: Annotated[
        CostTable | None,
        typer.Option(help="Compare a paper's cost table with our networks."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List architectures with their size and cost.

    Parameters are counted without a classifier, multiply-adds for one image.

    \b
    Examples:
      reidkit models
      reidkit models iaunet --set arch.backbone=resnet18
      reidkit models --table iaunet-vi
    """
    from reidkit.errors import ConfigError
    from reidkit.registry import check_arch_options, get_arch, list_archs

    options = parse_arch_options(set_)
    if name is not None:
        check_arch_options(name, options, where="--set")
    if table is not None:
        _show_table(table, json=json)
        return
    if name is None:
        if set_:
            raise ConfigError(
                f"--set needs an architecture, for example: reidkit models iaunet --set {set_[0]}"
            )
        rows = [_facts(get_arch(arch), {}) for arch in list_archs()]
        print_json(rows) if json else _print_list(rows)
        return
    spec = get_arch(name)
    facts = _facts(spec, options)
    facts["options"] = _options(spec)
    print_json(facts) if json else _print_one(facts)


def _facts(spec: ArchSpec, options: dict[str, Any]) -> dict[str, Any]:
    from reidkit.config.tables import from_table
    from reidkit.models.cost import build_on_meta, count_parameters, multiply_adds

    config: Any = from_table(spec.config, options, where=f"{spec.name} options")
    model = build_on_meta(spec, config)
    return {
        "name": spec.name,
        "parameters": count_parameters(model),
        "gmacs": round(multiply_adds(model, spec.input_size) / 1e9, 4),
        "input_size": list(spec.input_size),
        "embedding_dim": model.embedding_dim,
        "parts": list(spec.parts(config)),
        "source": spec.source,
    }


def _options(spec: ArchSpec) -> list[dict[str, Any]]:
    from reidkit.config.describe import describe

    return [
        {
            "name": setting.name,
            "type": " | ".join(setting.choices) or setting.type,
            "default": setting.default,
            "about": setting.meaning,
        }
        for setting in describe(spec.config, "arch")
    ]


def _print_list(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':{width}}  params M    GMAC    input   D      source")
    for row in rows:
        size = "x".join(str(side) for side in row["input_size"])
        print(
            f"{row['name']:{width}}  {row['parameters'] / 1e6:8.3f}  {row['gmacs']:6.3f}  "
            f"{size:>7}  {row['embedding_dim']:<5}  {row['source']}"
        )


def _print_one(facts: dict[str, Any]) -> None:
    size = "x".join(str(side) for side in facts["input_size"])
    from reidkit.config import toml_value

    print(f"{facts['name']}: {facts['source']}")
    print(f"  parameters     {facts['parameters']:,} without a classifier")
    print(f"  multiply-adds  {facts['gmacs']:.4f} G for one image of {size}")
    print(f"  embedding      {facts['embedding_dim']}")
    print(f"  part masks     {', '.join(facts['parts']) or 'none needed'}")
    print("options (--set arch.KEY=VALUE)")
    for option in facts["options"]:
        print(f"  {option['name']} = {toml_value(option['default'])}    {option['type']}")
        if option["about"]:
            print(f"      {option['about']}")


def _show_table(name: CostTable, *, json: bool) -> None:
    from reidkit.models.cost import TABLES, measure

    rows = [measure(row) for row in TABLES[name]]
    if json:
        print_json(
            [
                {
                    "row": row.label,
                    "arch": row.arch,
                    "options": dict(row.options),
                    "frames": row.frames,
                    "paper_params_m": row.params,
                    "params": row.measured_params,
                    "paper_gmacs": row.gmacs,
                    "gmacs": round(row.measured_macs / 1e9, 4),
                    "note": row.note,
                }
                for row in rows
            ]
        )
        return
    print(f"{'':16} paper M    ours M  paper G    ours G")
    for row in rows:
        paper = f"{'-' if row.params is None else row.params:>7}"
        gmacs = f"{'-' if row.gmacs is None else row.gmacs:>7}"
        print(
            f"{row.label:16} {paper}  {row.measured_params / 1e6:8.3f}  {gmacs}  "
            f"{row.measured_macs / 1e9:8.4f}  {row.note}".rstrip()
        )
