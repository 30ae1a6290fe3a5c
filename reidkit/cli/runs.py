"""Run folders on the command line: the newest one, the model in one, and its stored results."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from reidkit.evaluation import EvaluationResult

log = logging.getLogger(__name__)

RUNS = Path("runs")
METRICS = "metrics.json"


def find_model(path: Path | None) -> Path:
    """The checkpoint or ONNX file that a command is given, in a run folder or by itself; None
    selects the newest run's. Imports nothing heavy, so that a wrong name is refused at once.

    Raises:
        CheckpointError: there is no such file.
    """
    if path is None:
        found = sorted(RUNS.glob("*/model.safetensors"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise CheckpointError(
                f"no checkpoint given, and none found under {RUNS}. "
                "Train one: reidkit train --dataset NAME"
            )
        log.info("model: %s", found[-1])
        return found[-1]
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"{path} is a folder without model.safetensors, so not a completed run"
            if path.is_dir()
            else f"{path} does not exist"
            if path.suffix == ".onnx"
            else f"no such {'checkpoint' if path.suffix else 'run'}: {path}. "
            "Train one: reidkit train --dataset NAME"
        )
    return file


def newest_run() -> Path:
    """The run folder that was written to last.

    Raises:
        ConfigError: there is none.
    """
    found = sorted(RUNS.glob("*/config.toml"), key=lambda path: path.parent.stat().st_mtime)
    if not found:
        raise ConfigError(f"no run to resume under {RUNS}. Start a new one without --resume")
    return found[-1].parent


def run_folder(model: Path) -> Path | None:
    """The run folder that a model file belongs to and where its results are stored, if any."""
    return model.parent if (model.parent / "config.toml").is_file() else None


def trained_on(model: Path, *, command: str = "eval") -> str:
    """The data set of a checkpoint's header, for a command without --dataset.

    Args:
        command: whose use with --dataset the error recommends.
    Raises:
        ConfigError: the model does not contain it.
    """
    from reidkit.checkpoint import read_header
    from reidkit.config.tables import read_toml

    run = run_folder(model)
    root = read_toml(run / "config.toml").get("dataset", {}).get("root") if run else None
    name = read_header(model).dataset if model.suffix == ".safetensors" else ""
    if root and (Path(root) / "manifest.toml").is_file():
        _, at, split = name.partition("@")
        return f"{root}{at}{split}"  # a data set outside the data root
    if not name:
        raise ConfigError(
            f"{model} does not contain the data set it was trained on. "
            f"Run: reidkit {command} {model} --dataset NAME"
        )
    return name


def store_results(folder: Path, results: Sequence[EvaluationResult]) -> None:
    """Adds results to metrics.json; each replaces that of the same data set, model and rule."""
    from reidkit.files import atomic

    new = [result.to_dict(per_query=True) for result in results]
    earlier = read_results(folder) if (folder / METRICS).is_file() else []
    taken = {_key(document) for document in new}
    kept = [document for document in earlier if _key(document) not in taken]
    with atomic(folder / METRICS) as partial:
        partial.write_text(json.dumps({"results": [*kept, *new]}, indent=1))


def _key(document: dict[str, Any]) -> tuple[object, ...]:
    names = ("dataset", "dataset_fingerprint", "model_sha256", "rule")
    rerank = (document.get("reranked") or {}).get("rerank")
    return (*(document.get(name) for name in names), json.dumps(rerank, sort_keys=True))


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results in a metrics.json, or in a run folder's, from the oldest.

    Raises:
        DataError: the file is missing or was not written by `reidkit eval`.
    """
    file = path / METRICS if path.is_dir() else path
    try:
        results: list[dict[str, Any]] = json.loads(file.read_text())["results"]
        if not all(isinstance(result["dataset"], str) for result in results):
            raise ValueError("names of data sets are not strings")
        return results
    except FileNotFoundError as error:
        is_run = (path / "model.safetensors").is_file()
        advice = f"Run: reidkit eval {path}" if is_run else f"Pass a run folder or a {METRICS}"
        raise DataError(f"{file} does not exist. {advice}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} was not written by reidkit eval. Run: reidkit eval MODEL --dataset NAME -o "
            f"{file.parent}"
        ) from error
