"""Run folders on the command line: the newest one, the model in one, and its stored results."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from reidkit.choices import ApRule
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.files import check_regular

if TYPE_CHECKING:
    from reidkit.evaluation import EvaluationResult

log = logging.getLogger(__name__)

RUNS = Path("runs")
METRICS = "metrics.json"
CLOCK_SKEW = 60.0
"""Seconds by which the clock of a file server may be ahead."""

MODEL_SUFFIXES = (".safetensors", ".onnx")
WEIGHTS_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt")
"""Of other projects' checkpoints."""
FEATURES_SUFFIXES = (".h5", ".npz", ".csv", ".parquet")
TABLE_SUFFIXES = (".csv", ".parquet")
"""Of features files that are written for other tools and not read."""


def find_model(path: Path | None) -> Path:
    """The checkpoint or ONNX file that a command is given, in a run folder or by itself; None
    selects the newest run's. Imports nothing heavy, so that a wrong name is refused at once.

    Raises:
        CheckpointError: there is no such file, or its suffix is of another kind of file.
    """
    if path is None:
        found = list(RUNS.glob("*/model.safetensors"))
        if not found:
            raise CheckpointError(
                f"no checkpoint given, and none found under {RUNS}. "
                "Train one: reidkit train --dataset NAME"
            )
        newest = _newest(found, advice="Pass the checkpoint or run folder that you mean")
        log.info("model: %s", newest)
        return newest
    file = path / "model.safetensors" if path.is_dir() else path
    check_regular(file, CheckpointError)
    if file.is_file() and file.suffix not in MODEL_SUFFIXES:
        raise CheckpointError(f"{path} is not a model. {_kind_of_file(file)}")
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


def _kind_of_file(path: Path) -> str:
    """What to do with a file that is not a model."""
    suffix, name = path.suffix.lower(), shlex.quote(str(path))
    if suffix in FEATURES_SUFFIXES:
        return (
            "Features are evaluated by: "
            "reidkit eval --query-features FILE --gallery-features FILE --protocol NAME"
        )
    if suffix in WEIGHTS_SUFFIXES:
        return (
            "Convert third-party weights: "
            f"reidkit import {name} --from FORMAT --arch NAME -o model.safetensors"
        )
    return f"Expected a run folder or a file with the suffix {' or '.join(MODEL_SUFFIXES)}"


def newest_run() -> Path:
    """The run folder that was written to last.

    Raises:
        ConfigError: there is none.
    """
    found = [path.parent for path in RUNS.glob("*/config.toml")]
    if not found:
        raise ConfigError(f"no run to resume under {RUNS}. Start a new one without --resume")
    return _newest(found, advice="Pass the run that you mean: reidkit train --resume -o FOLDER")


def _newest(paths: Sequence[Path], *, advice: str) -> Path:
    """The file or folder that was written to last.

    Raises:
        ConfigError: one is dated later than now, so that the clock was set back, and dates do not
            say which is the newest.
    """
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    written = newest.stat().st_mtime
    if len(paths) > 1 and written > time.time() + CLOCK_SKEW:
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(written))
        raise ConfigError(
            f"{newest} is dated {date}, later than now, so that dates do not say which run is the "
            f"newest. {advice}"
        )
    return newest


def warn_if_data_changed(model: Path, dataset: str, fingerprint: str) -> None:
    """Logs a warning if a checkpoint was trained on the data set of this name when it had other
    images or labels.

    Args:
        fingerprint: of the data set now.
    """
    from reidkit.checkpoint import read_header

    if model.suffix != ".safetensors":
        return
    header = read_header(model)
    if header.dataset == dataset and header.fingerprint not in ("", fingerprint):
        log.warning(
            "%s has other images or labels than when %s was trained: compare no results with those "
            "of the training",
            *(dataset, model),
        )


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
    taken = {_key(document) for document in new}
    with atomic(folder / METRICS) as partial:  # also locks it against another evaluation
        earlier = read_results(folder) if (folder / METRICS).is_file() else []
        kept = [document for document in earlier if _key(document) not in taken]
        partial.write_text(json.dumps({"results": [*kept, *new]}, indent=1))


def _key(document: dict[str, Any]) -> tuple[object, ...]:
    names = ("dataset", "dataset_fingerprint", "model_sha256", "rule")
    rerank = (document.get("reranked") or {}).get("rerank")
    return (*(document.get(name) for name in names), json.dumps(rerank, sort_keys=True))


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results in a metrics.json, or in a run folder's, from the oldest.

    Raises:
        DataError: the file is missing, was not written by `reidkit eval`, or was edited.
    """
    file = path / METRICS if path.is_dir() else path
    check_regular(file, DataError)
    try:
        results = json.loads(file.read_text())["results"]
        if not isinstance(results, list):
            raise TypeError("results are not a list")
    except FileNotFoundError as error:
        is_run = (path / "model.safetensors").is_file()
        advice = f"Run: reidkit eval {path}" if is_run else f"Pass a run folder or a {METRICS}"
        raise DataError(f"{file} does not exist. {advice}") from error
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise DataError(
            f"{file} was not written by reidkit eval. Run: reidkit eval MODEL --dataset NAME -o "
            f"{shlex.quote(str(file.parent))}"
        ) from error
    for number, result in enumerate(results, start=1):
        wrong = _wrong_field(result)
        if wrong:
            raise DataError(
                f"{file} is damaged or was edited: {wrong} of result {number}. Remove the file, "
                "and run reidkit eval again"
            )
    return results


MAX_NUMBER = 1 << 63
"""Bound on the numbers of a result, all of which fit into an int64; NaN and infinity do not."""
_TEXTS = ("model", "model_sha256", "dataset", "dataset_fingerprint", "rule")
_SCORES = ("mAP", "mINP", "top1", "top5")
_WHOLE_NUMBERS = ("pid", "camid", "label", "rank", "matches", "first_rank")


def _wrong_field(result: Any) -> str:
    """The name of the first field of a stored result that is not of its type; "": none is."""
    if not isinstance(result, dict):
        return "the type"
    missing = [name for name in ("dataset", "rule", "per_query") if name not in result]
    per_query = result.get("per_query")
    if missing or not isinstance(per_query, dict):
        return (missing or ["per_query"])[0]
    checks = {name: isinstance(result.get(name, ""), str) for name in _TEXTS}
    checks |= {name: _is_number(result.get(name)) for name in _SCORES}
    checks["cmc"] = _are_numbers(result.get("cmc", []))
    checks["reranked"] = isinstance(result.get("reranked"), dict | None)
    if result.get("task") == "classification":
        needed: tuple[str, ...] = ()
    else:
        checks["ap"] = result.get("ap") in get_args(ApRule)
        needed = ("pid", "camid", "average_precision", "inverse_negative_penalty", "rank_1")
    queries = next((len(values) for values in per_query.values() if isinstance(values, list)), 0)
    for name in dict.fromkeys((*needed, *per_query)):
        values: Any = per_query.get(name)
        whole = name in _WHOLE_NUMBERS
        checks[f"per_query.{name}"] = (
            _are_numbers(values)
            and len(values) == queries
            and not (whole and not all(isinstance(value, int) for value in values))
        )
    return next((name for name, passed in checks.items() if not passed), "")


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    """Whether a value is a number or None, which stands for NaN."""
    if value is None:
        return True
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < MAX_NUMBER
