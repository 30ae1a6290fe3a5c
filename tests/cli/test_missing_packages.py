"""An installation without PyTorch, such as the image of Dockerfile.serve."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from reidkit.doctor import report
from reidkit.doctor.packages import missing_packages

REQUIRED = ["torch>=2.6", "numpy>=1.26", "tomli-w>=1.0", "onnxruntime-gpu[cuda,cudnn]>=1.20"]


def run_without(packages: tuple[str, ...], *arguments: str, cwd: Path) -> tuple[int, str]:
    """Exit status and stderr of a command in a Python that does not have these packages."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({packages!r}))\n"
        "from importlib import metadata\n"
        f"metadata.requires = lambda name: {REQUIRED!r}\n"
        "from reidkit.cli import main\n"
        f"main({list(arguments)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_command_that_needs_pytorch_names_all_packages_to_install(tmp_path: Path) -> None:
    status, message = run_without(("torch", "tomli_w"), "models", cwd=tmp_path)
    assert status == 2 and message.count("\n") == 1
    assert message.startswith("error: this command needs torch, which is not installed")
    assert message.endswith("Run: pip install torch tomli-w\n")


def test_serving_a_checkpoint_without_pytorch_says_to_export_it(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    (tmp_path / "model.safetensors").write_bytes(b"")
    status, message = run_without(("torch",), "serve", "model.safetensors", cwd=tmp_path)
    assert status == 2 and message.count("\n") == 1
    assert message.endswith("Export it where PyTorch is: reidkit export model.safetensors --onnx\n")


def test_a_module_that_no_required_package_has_keeps_its_traceback(tmp_path: Path) -> None:
    status, message = run_without(("reidkit.registry",), "models", cwd=tmp_path)
    assert status == 1 and "ModuleNotFoundError" in message


def test_missing_packages_are_known_by_their_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: [*REQUIRED, 'faiss-cpu; extra == "x"'])
    assert missing_packages() == {}
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    assert missing_packages() == {"tomli_w": "tomli-w"}


def test_little_shared_memory_is_no_problem_without_pytorch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "installed_version", lambda name: "")
    names = {finding.name for finding in report.system_findings(tmp_path, driver="")}
    assert "memory" in names and "shared memory" not in names
