"""reidkit models."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json

if TYPE_CHECKING:
    from reidkit.registry import ArchSpec


def models(
    name: Annotated[
        str | None, typer.Argument(help="Show this one, with its options. [default: list all]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of NAME, as arch.stages=[2]; repeatable."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(help="A paper's table beside ours: iaunet-vi, rga-3 or ianet-cost."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the architectures, with parameters, multiply-adds, input and embedding size."""
    from reidkit.config import set_layer
    from reidkit.errors import ConfigError
    from reidkit.registry import get_arch, list_archs

    if table is not None:
        _show_table(table, json=json)
        return
    if name is None:
        if set_:
            raise ConfigError("--set needs the name of an architecture: reidkit models NAME --set")
        rows = [_facts(get_arch(arch), {}) for arch in list_archs()]
        print_json(rows) if json else _print_list(rows)
        return
    spec = get_arch(name)
    layer = set_layer(set_ or ()).table
    if set(layer) - {"arch"}:
        raise ConfigError("--set here takes options of the architecture: arch.KEY=VALUE")
    facts = _facts(spec, layer.get("arch", {}))
    facts["options"] = _options(spec)
    print_json(facts) if json else _print_one(facts)


def _facts(spec: ArchSpec, options: dict[str, Any]) -> dict[str, Any]:
    """One architecture's cost and shape. Parameters are counted without a classifier."""
    from reidkit.config.tables import from_table
    from reidkit.models.cost import build_weightless, count_parameters, multiply_adds

    config: Any = from_table(spec.config, options, where=f"{spec.name} options")
    model = build_weightless(spec, config)
    return {
        "name": spec.name,
        "parameters": count_parameters(model),
        "gmacs": round(multiply_adds(model, spec.input_size) / 1e9, 4),
        "input_size": list(spec.input_size),
        "embedding_dim": model.embedding_dim,
        "parts": list(model.parts),
        "source": spec.source,
    }


def _options(spec: ArchSpec) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(spec.config)
    explained = _explanations(spec.config)
    return [
        {
            "name": field.name,
            "type": _type_name(hints[field.name]),
            "default": getattr(spec.config(), field.name),
            "about": explained.get(field.name, ""),
        }
        for field in dataclasses.fields(spec.config)
    ]


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {typing.get_args(hint)[0].__name__}"
    return str(hint.__name__)


def _explanations(config: type) -> dict[str, str]:
    """Each field's sentence from the `Attributes:` section of the class and its bases."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


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
    print(f"{facts['name']}: {facts['source']}")
    print(f"  parameters     {facts['parameters']:,} without a classifier")
    print(f"  multiply-adds  {facts['gmacs']:.4f} G for one image of {size}")
    print(f"  embedding      {facts['embedding_dim']}")
    print(f"  part masks     {', '.join(facts['parts']) or 'none needed'}")
    print("options (--set arch.KEY=VALUE)")
    for option in facts["options"]:
        print(f"  {option['name']} = {_toml(option['default'])}    {option['type']}")
        if option["about"]:
            print(f"      {option['about']}")


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _show_table(name: str, *, json: bool) -> None:
    from reidkit.errors import ConfigError, suggest
    from reidkit.models.published import TABLES, measure

    if name not in TABLES:
        raise ConfigError(f"unknown table {name!r}. {suggest(name, TABLES)}")
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
