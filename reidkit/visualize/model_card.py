"""A model card in Markdown: what a checkpoint is, how it was trained, its results and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from reidkit import checkpoint
from reidkit.config import from_table
from reidkit.data.manifest import list_manifests
from reidkit.data.schema import Manifest
from reidkit.evaluation import percentages
from reidkit.models.cost import build_on_meta, count_parameters, multiply_adds
from reidkit.registry import get_arch

RETRIEVAL = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
CLASSIFICATION = ("top-1", "top-5")
UNKNOWN = "not known"


@dataclass(frozen=True)
class CardSource:
    """What a model card is written from.

    Attributes:
        file: name of the checkpoint file.
        sha256: of that file, hexadecimal.
        header: of the checkpoint.
        manifest: of the training data; None if it cannot be found.
        results: documents of `reidkit eval` for this file (`EvaluationResult.to_dict`).
    """

    file: str
    sha256: str
    header: checkpoint.Header
    manifest: Manifest | None = None
    results: Sequence[Mapping[str, Any]] = ()

    @property
    def classification(self) -> bool:
        """Whether the network was trained and evaluated as a classifier (CIFAR-100)."""
        return self.header.metrics.get("task") == "classification"


def model_card(source: CardSource) -> str:
    """The card in Markdown. It contains no path of the machine that it was written on.

    Raises:
        ConfigError: this reidkit does not have the checkpoint's architecture or one of its options.
    """
    header = source.header
    sections = [
        f"# {header.arch}{' on ' + header.dataset if header.dataset else ''}",
        _purpose(source),
        "## Model",
        _table(("", ""), _model_rows(source)),
        "## Training",
        _table(("", ""), _training_rows(source)),
        "## Results",
        _results(source),
        "## Use",
        _use(source),
        "## Intended use and limits",
        _limits(source),
        "## Licence",
        _licence(source),
    ]
    return "\n\n".join(sections) + "\n"


def _purpose(source: CardSource) -> str:
    header = source.header
    data = f", trained on {_data_name(source)}" if header.dataset else ""
    if source.classification:
        return f"An image classifier{data}. Its accuracy is a benchmark of the architecture."
    items = "clips of a tracklet" if header.frames else "images of people"
    return (
        f"A network for person re-identification{data}. It maps {items} to embeddings whose "
        "distance is small for the same person and large for different people."
    )


def _model_rows(source: CardSource) -> list[tuple[str, str]]:
    header = source.header
    spec, size = get_arch(header.arch), header.preprocess.size
    config: Any = from_table(spec.config, header.arch_config, where=f"{header.arch} options")
    network = build_on_meta(spec, config, num_ids=header.num_ids, input_size=size)
    embedding = build_on_meta(spec, config, input_size=size)
    macs = multiply_adds(embedding, size, frames=header.frames or 1)
    preprocess, colors = header.preprocess, header.preprocess.channels.upper()
    unit = f"clip of {header.frames} frames" if header.frames else "image"
    stride = f", every {header.stride}th frame in training" if header.stride > 1 else ""
    return [
        ("file", f"`{source.file}`"),
        ("sha256", f"`{source.sha256}`"),
        ("architecture", f"`{header.arch}` ({spec.source})"),
        ("options", _settings(header.arch_config)),
        (
            "parameters",
            f"{count_parameters(embedding):,}; {count_parameters(network):,} with the classifier",
        ),
        ("multiply-adds", f"{macs / 1e9:.3f} G for one {unit}"),
        ("input", f"{unit}{stride}, {size[0]}x{size[1]} (height x width), {colors}"),
        (
            "preprocessing",
            f"{preprocess.interpolation}; mean {list(preprocess.mean)}, std {list(preprocess.std)}",
        ),
        ("embedding", f"{network.embedding_dim} numbers"),
        (
            "written by",
            f"reidkit {header.reidkit}" + (f", git `{header.git}`" if header.git else ""),
        ),
    ]


def _training_rows(source: CardSource) -> list[tuple[str, str]]:
    header = source.header
    if "imported" in header.recipe:
        imported = header.recipe["imported"]
        origin = f"`{imported['file']}`, weights in the format {imported['format']}"
        return [("imported from", origin), ("training data", UNKNOWN)]
    rows = [
        ("data", _data_name(source)),
        ("identities", f"{header.num_ids:,}"),
        ("fingerprint", f"`{header.fingerprint}`" if header.fingerprint else UNKNOWN),
        ("licence of the data", _data_licence(source)),
    ]
    recipe = header.recipe
    tables = ("sampler", "augment", "loss", "optim", "schedule")
    rows += [(name, _settings(recipe[name])) for name in tables if name in recipe]
    if recipe.get("init"):
        partial = ", those tensors that fit" if recipe.get("init_partial") else ""
        rows.append(("initial weights", f"`{PurePath(str(recipe['init'])).name}`{partial}"))
    elif "weights" in recipe:
        rows.append(("initial weights", _initial_weights(str(recipe["weights"]))))
    rows += [(name, f"`{recipe[name]}`") for name in ("seed", "precision") if name in recipe]
    metrics = header.metrics
    if "epoch" in metrics:
        epochs = recipe.get("schedule", {}).get("epochs", UNKNOWN)
        rows.append(("epoch", f"{metrics['epoch']} of {epochs}"))
    if "chosen_by" in metrics:
        biased = metrics["chosen_by"] == "test set"
        caution = ", so its results on the test set are optimistic" if biased else ""
        rows.append(("checkpoint chosen by", f"the {metrics['chosen_by']}{caution}"))
    return rows


def _results(source: CardSource) -> str:
    """Stored results of this file, else those that training has left in the header."""
    header = source.header
    results: Sequence[Mapping[str, Any]] = source.results
    caption = "In %, with the 95 % interval over identities where it is known."
    if not results:
        results = results_of_training(header)
        caption = "In %, measured at the end of training."
    if not results:
        return "Not evaluated."
    scores = CLASSIFICATION if source.classification else RETRIEVAL
    # eval --rerank stores the plain ranking, too, which may have been stored before
    rows = dict.fromkeys(row for result in results for row in _result_rows(result, scores))
    text = f"{caption}\n\n{_table(('data set', 'rule', *scores), list(rows))}"
    if header.synthetic or any(result.get("synthetic") for result in results):
        text += "\n\nSynthetic data: these numbers are not comparable with published ones."
    return text


def _result_rows(result: Mapping[str, Any], scores: Sequence[str]) -> list[tuple[str, ...]]:
    """Cells of the plain ranking and of the re-ranked one, if there is one."""
    rule = rule_of(result)
    rankings = {rule: result}
    if result.get("reranked"):
        rankings[f"{rule}, re-ranked"] = result["reranked"]
    return [
        (str(result["dataset"]), name, *_score_cells(metrics, scores))
        for name, metrics in rankings.items()
    ]


def _score_cells(metrics: Mapping[str, Any], scores: Sequence[str]) -> list[str]:
    values = percentages(metrics)
    if metrics.get("mINP") is not None:
        values["mINP"] = 100 * metrics["mINP"]
    cells = {score: f"{value:.1f}" for score, value in values.items()}
    if interval := (metrics.get("intervals") or {}).get("mAP"):
        cells["mAP"] += f" ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
    return [cells.get(score, "-") for score in scores]


def rule_of(metrics: Mapping[str, Any]) -> str:
    """How stored metrics were obtained; those of training have no rule of their own."""
    if metrics.get("rule"):
        return str(metrics["rule"])
    if "protocol" not in metrics:
        return "one view"
    parts = [f"protocol {metrics['protocol']}", metrics.get("metric", "")]
    parts.append(f"{metrics['ap']} AP" if metrics.get("ap") else "")
    return ", ".join(part for part in parts if part)


def results_of_training(header: checkpoint.Header) -> list[dict[str, Any]]:
    """The scores that training has left in the header, as a document of `reidkit eval`, if any."""
    if "mAP" not in header.metrics and "top1" not in header.metrics:
        return []
    return [{**header.metrics, "dataset": _evaluated_in_training(header)}]


def _evaluated_in_training(header: checkpoint.Header) -> str:
    """The data of the header's scores: `validation` is there once the test set was evaluated."""
    by_test_set = header.metrics.get("chosen_by") == "test set"
    if by_test_set or "validation" in header.metrics:
        return header.dataset
    return f"{header.dataset}, held-out training identities"


def _use(source: CardSource) -> str:
    header, file = source.header, source.file
    name = header.dataset
    if name.partition("@")[0] in list_manifests():
        data = f"{name} --data-root data"
    else:
        data = f"data/{name or 'NAME'}"
    images = "--tracklets" if header.frames else "--images"
    folder = "tracklets" if header.frames else "photos"
    content = "one sub-folder of frames per tracklet" if header.frames else "images of people"
    return (
        f"In the folder of `{file}`, with data sets in `data/` and {content} in `{folder}/`:\n\n"
        "```bash\n"
        f"reidkit eval {file} --dataset {data}\n"
        f"reidkit extract {file} {images} {folder} -o features.h5\n"
        f"reidkit export {file} --onnx\n"
        "```\n\n"
        "The file contains architecture and preprocessing, so no command needs more options."
    )


def _limits(source: CardSource) -> str:
    if source.classification:
        return "Intended for comparing architectures, not for re-identification."
    points = [
        "Intended for research, and for retrieving images of the same person from cameras that you "
        "may lawfully search, where a human reviews every result. Not intended to establish a "
        "person's name, nor for decisions about people without human review.",
        "A ranked list always has a first entry, whether or not the person is in the gallery. A "
        "threshold for a match must be chosen on data of the cameras it is used with.",
        "Images of people and their embeddings are personal data in many countries. Collecting "
        "them, and searching them for a person, may need consent or another legal basis, and is "
        "prohibited in some settings. Clarify this before use.",
        "Results hold for the people, clothing, cameras and season of the data set. Expect lower "
        "accuracy on other cameras: evaluate on your own data first. Unless the training data show "
        "people on different days, the network matches clothing to a large extent.",
        "Whether accuracy differs between groups of people (skin colour, sex, age, disability, "
        "clothing) has not been measured here. The data set's selection of people is a bias of the "
        "network.",
    ]
    if source.header.synthetic:
        points.insert(
            0,
            "Trained on synthetic people, rendered by reidkit: it shows that the software works, "
            "and is not meant for images of real people.",
        )
    return "\n".join(f"- {point}" for point in points)


def _licence(source: CardSource) -> str:
    header = source.header
    parts = ["The code, reidkit, is under the MIT licence."]
    if header.dataset:
        parts.append(f"Licence of the training data: {_data_licence(source)}.")
    if header.recipe.get("weights", "none") != "none":
        parts.append("Training started from pretrained weights, which have terms of their own.")
    parts.append("These terms may also limit the use and the distribution of the trained weights.")
    return " ".join(parts)


def _data_name(source: CardSource) -> str:
    name, manifest = source.header.dataset, source.manifest
    if not name:
        return UNKNOWN
    if manifest is None:
        return f"`{name}`"
    title = f"[{manifest.title or name}]({manifest.home})"
    return f"{title if '://' in manifest.home else manifest.title or name} (`{name}`)"


def _data_licence(source: CardSource) -> str:
    stated = source.manifest.licence if source.manifest else ""
    if source.header.synthetic:
        return stated or "synthetic images, rendered by reidkit"
    return stated or f"{UNKNOWN}; ask the owner of the data"


def _initial_weights(weights: str) -> str:
    """Without the folder of a weights file, which is of one machine only."""
    if weights == "auto":
        return "torchvision's, trained on ImageNet"
    return "none, random" if weights == "none" else f"`{PurePath(weights).name}`"


def _settings(table: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in table.items()) or "none"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
