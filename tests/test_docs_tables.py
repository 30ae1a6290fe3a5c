"""The README lists the architectures of the registry and the data sets of the manifests."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from documented import ROOT

from reidkit.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(header: str) -> str:
    """The rows below a header."""
    rows = README.partition(header + "\n")[2].partition("\n\n")[0]
    return rows.partition("\n")[2]


def archs_table(archs: list[dict[str, Any]]) -> str:
    """Architectures by paper, with millions of parameters."""
    papers: dict[str, list[str]] = {}
    for arch in archs:
        paper = re.sub(r", (Table|sec\.).*| \(.*", "", arch["source"])
        papers.setdefault(paper, []).append(f"`{arch['name']}` {arch['parameters'] / 1e6:.1f}")
    return "\n".join(f"| {paper} | {', '.join(names)} |" for paper, names in papers.items())


def datasets_table() -> str:
    """Identities and images (or tracklets) of each split; what a manifest does not state is -."""
    rows = []
    for file in sorted((ROOT / "data_manifests").glob("*.toml")):
        manifest = tomllib.loads(file.read_text(encoding="utf-8"))
        cells = []
        for name in ("train", "query", "gallery"):
            split = manifest["splits"].get(name, {})
            items = split.get("tracklets", split.get("images"))
            counts = [f"{n:,}" if n else "-" for n in (split.get("ids"), items)]
            cells.append(" / ".join(counts) if any((split.get("ids"), items)) else "-")
        rows.append(f"| `{manifest['name']}` | {manifest['title']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def test_the_readme_lists_every_architecture_with_its_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["models", "--json"])
    archs = json.loads(capsys.readouterr().out)
    assert table("| paper | `--arch`, million parameters |") == archs_table(archs)


def test_the_readme_lists_every_data_set_with_its_counts() -> None:
    header = "| `--dataset` | data set | train | query | gallery |"
    assert table(header) == datasets_table()
