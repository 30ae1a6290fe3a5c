"""The examples of docs/adding.md work as they are written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import DOCS

from reidkit import choices, registry
from reidkit.data.manifest import open_dataset

PAGE = (DOCS / "adding.md").read_text(encoding="utf-8")


def example(section: str, language: str) -> str:
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"no {language} example under {section}"
    return found[1]


def definitions(section: str) -> dict[str, Any]:
    """The names that the section's Python defines."""
    names: dict[str, Any] = {"__name__": "example"}
    source = example(section, "python")
    exec(compile(source, f"docs/adding.md, {section}", "exec", dont_inherit=True), names)
    return names


def test_the_manifest_opens_a_folder_of_images(market: Path, tmp_path: Path) -> None:
    image = next((market / "query").glob("*.jpg"))
    for split, camera, pid in (("train", 1, 7), ("query", 1, 8), ("gallery", 2, 8)):
        (tmp_path / split).mkdir()
        shutil.copy(image, tmp_path / split / f"{pid:04d}_c{camera}_00015.jpg")
    (tmp_path / "manifest.toml").write_text(example("A data set", "toml"))
    data = open_dataset(str(tmp_path))
    assert [len(split) for split in (data.train, data.query, data.gallery)] == [1, 1, 1]
    assert (data.query[0].pid, data.gallery[0].camid) == (8, 2)


def test_the_architecture_trains_and_embeds(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.list_archs()  # registers the others before the table is copied
    monkeypatch.setattr(registry, "_ARCHS", dict(registry._ARCHS))
    monkeypatch.setitem(choices.ARCH_OPTIONS, "max-pool", ("backbone", "last_stride"))
    definitions("An architecture")
    spec = registry.get_arch("max-pool")
    network = spec.build(spec.config(backbone="resnet18"), num_ids=3, input_size=(64, 32))
    images = torch.rand(2, 3, 64, 32)
    assert network(images).logits[0].shape == (2, 3)
    assert network.eval().embed(images).shape == (2, 512)
    assert network.embed(images[:, None]).shape == (2, 512)


def test_the_loss_is_zero_at_its_target() -> None:
    loss = definitions("A loss")["feature_norm"]
    assert loss(torch.tensor([[3.0, 4.0]]), norm=5.0) == 0
    assert loss(torch.tensor([[3.0, 4.0]]), norm=4.0) == 1


def test_the_backbone_states_its_maps_and_channels() -> None:
    backbone = definitions("A backbone")["ConvNeXtBackbone"]().eval()
    with torch.no_grad():
        maps = backbone.stem(torch.rand(1, 3, 64, 32))
        for stage in (1, 2, 3, 4):
            for unit, channels in zip(
                backbone.units(stage), backbone.unit_channels(stage), strict=True
            ):
                maps = unit(maps)
                assert maps.shape[1] == channels
            assert maps.shape[2:] == backbone.map_size(stage, (64, 32))
