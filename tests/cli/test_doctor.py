"""reidkit doctor: whatever is missing or broken becomes a finding with a remedy, never a crash."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.data.manifest import MANIFEST, load_manifest
from reidkit.doctor import Finding, Report, examine, machine, probes, runtimes
from reidkit.doctor.data import data_findings
from reidkit.doctor.packages import Requirement, package_findings
from reidkit.doctor.probes import ProbeResult, run_probe
from reidkit.doctor.report import system_findings

FLAGS = "processor: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_bf16\n"


def install(folder: Path, package: str, version: str, code: str = "") -> None:
    """A package of one module, as pip would have installed it into `folder`."""
    name = package.replace("-", "_")
    (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    )
    (folder / f"{name}.py").write_text(code)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_this_machine_can_run_networks_on_the_cpu() -> None:
    report = examine()
    found = by_name(list(report.findings))
    assert report.can_run
    assert found["torch"].status == found["CPUExecutionProvider"].status == "ok"
    assert found["HDF5"].status == "ok" and "numpy" in found["required"].found
    assert found["Python"].found.startswith(".".join(map(str, sys.version_info[:3])))


def test_the_probe_model_is_one_relu() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(probes._ONE_RELU)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Relu"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os.kill(os.getpid(), 11)", "killed by signal 11"),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13"),
        ("import sys; sys.exit(3)", "ended with status 3"),
    ],
)
def test_a_pytorch_that_cannot_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    install(tmp_path, "torch", "2.9.0", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = runtimes.torch_findings(driver="")
    assert finding.status == "problem" and expected in finding.found
    assert finding.fix == "Run: pip install --force-reinstall torch torchvision"


def test_a_probe_without_an_answer_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "torch", "2.9.0", "import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(probes, "TIMEOUT", 0.5)
    assert run_probe("torch").error == "no answer within 0.5 seconds"


def test_two_wheels_of_onnx_runtime_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "__version__ = '1.20.0'\ndef get_available_providers(): return []"
    install(tmp_path, "onnxruntime", "1.20.0", code)
    install(tmp_path, "onnxruntime-gpu", "1.20.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    wheels = by_name(runtimes.onnxruntime_findings(driver=""))["wheels"]
    assert wheels.status == "problem"
    assert wheels.found == "onnxruntime and onnxruntime-gpu overwrite each other's files"
    assert wheels.fix == (
        "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"
    )


def test_a_cuda_provider_that_does_not_load_is_a_problem_only_with_a_driver() -> None:
    log = (
        "[E:onnxruntime:Default] Failed to load library /x/libonnxruntime_providers_cuda.so "
        "with error: libcublas.so.13: cannot open shared object file\n"
    )
    probe = ProbeResult({"works": False, "log": log})
    with_driver = runtimes._provider_finding("CUDAExecutionProvider", probe, "580.1")
    assert with_driver.status == "problem" and "--device cpu" in with_driver.fix
    assert with_driver.found == "libcublas.so.13: cannot open shared object file"
    assert runtimes._provider_finding("CUDAExecutionProvider", probe, "").status == "absent"


def test_without_pytorch_and_onnx_runtime_nothing_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtimes, "installed_version", lambda name: "")
    findings = runtimes.torch_findings("") + runtimes.onnxruntime_findings("")
    assert [finding.status for finding in findings] == ["absent", "absent"]
    assert all(finding.fix.startswith("Run: pip install") for finding in findings)
    assert not Report(tuple(findings)).can_run


def test_instruction_sets_are_read_from_cpuinfo() -> None:
    assert machine.cpu_instructions(FLAGS) == ["AVX2", "AVX-512", "VNNI", "AMX BF16"]
    assert machine.cpu_instructions("Features\t: fp asimd\n") == ["NEON"]
    assert machine.cpu_instructions("") == []


def test_little_memory_and_disk_are_problems_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: (2**29, 2**34))
    monkeypatch.setattr(machine, "free_space", lambda path: 2**30)
    monkeypatch.setattr(machine, "disk_size", lambda path: 2**26)
    found = by_name(system_findings(tmp_path / "absent", driver=""))
    assert found["memory"].found == "0.5 of 16.0 GiB available"
    assert found["disk of the data root"].found == f"1.0 GiB free at {tmp_path / 'absent'}"
    for name in ("memory", "disk of the data root", "disk of the working directory"):
        assert found[name].status == "problem" and found[name].fix
    if "shared memory" in found:
        assert "docker run --shm-size 4g" in found["shared memory"].fix


def test_a_container_limits_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n",
        "/sys/fs/cgroup/memory.max": "2147483648\n",
        "/sys/fs/cgroup/memory.current": "1073741824\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine.memory() == (2**30, 2**31)
    files["/sys/fs/cgroup/memory.max"] = "max"
    assert machine.memory() == (2**32, 2**33)


def test_requirements_are_read_from_package_metadata() -> None:
    read = Requirement.parse
    assert read("numpy>=1.26") == Requirement("numpy", "1.26", "")
    assert read('pyarrow>=15; extra == "parquet"') == Requirement("pyarrow", "15", "parquet")
    assert read("onnxruntime-gpu[cuda,cudnn]>=1.20; sys_platform != 'darwin'").minimum == "1.20"


def test_missing_old_and_broken_packages_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "fine", "2.0")
    install(tmp_path, "aged", "1.9")
    install(tmp_path, "broken", "2.0", "raise RuntimeError('built for another numpy')")
    monkeypatch.syspath_prepend(str(tmp_path))
    required = ["fine>=2.0", "aged>=1.10", "broken", "gone>=1", "absent-one; extra == 'more'"]
    monkeypatch.setattr("reidkit.doctor.packages.metadata.requires", lambda name: required)
    found = by_name(package_findings())
    assert found["required"].found == "fine 2.0"
    assert found["aged"].found == "1.9, expected 1.10 or newer"
    assert found["broken"].found == "RuntimeError: built for another numpy"
    assert found["gone"].fix == "Run: pip install --upgrade gone"
    assert {found[n].status for n in ("aged", "broken", "gone")} == {"problem"}
    assert found["extra more"].status == "absent"
    assert found["extra more"].fix == "Run: pip install 'reidkit[more]'"


def test_data_sets_and_mask_files_are_found(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Market-1501-v15.09.15").symlink_to(market)
    run("prepare-masks", "--dataset", market, "-o", "masks/market.h5")
    (tmp_path / "masks" / "mars.h5").write_bytes(b"not HDF5")
    monkeypatch.chdir(tmp_path)
    found = by_name(data_findings(None))
    assert found["market1501"].found == "data/Market-1501-v15.09.15"
    assert "reidkit datasets verify market1501" in found["market1501"].fix
    assert "mars" in found["not under it"].found
    assert "parts head, upper body" in found["masks/market.h5"].found
    assert found["masks/mars.h5"].status == "problem"
    assert found["masks/mars.h5"].fix == "Run: reidkit prepare-masks --dataset mars --overwrite"


def found_sets(root: Path) -> dict[str, str]:
    """Folders of the data sets that are found, by name."""
    findings = data_findings(root)
    return {f.name: f.found for f in findings if "reidkit datasets verify" in f.fix}


def test_a_generated_data_set_is_listed_once_by_its_own_name(market: Path, tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    folder = tmp_path / "my data" / "people"
    folder.symlink_to(market)
    name = load_manifest(market / MANIFEST).name
    assert found_sets(tmp_path / "my data") == {name: str(folder)}
    assert found_sets(folder) == {name: str(folder)}  # the data root is the data set
    fix = by_name(data_findings(folder))[name].fix
    assert fix.endswith(f"reidkit datasets verify '{folder}'")


def test_a_published_data_set_is_found_by_its_folder_or_its_images(
    market: Path, tmp_path: Path
) -> None:
    named, other = tmp_path / "Market-1501", tmp_path / "other"
    for folder in (named, other):
        shutil.copytree(market, folder, ignore=shutil.ignore_patterns(MANIFEST))
    assert found_sets(tmp_path) == {"market1501": str(named)}  # not the 500,000 distractors
    assert found_sets(named) == {"market1501": str(named)}
    assert found_sets(other) == {"market1501": str(other)}  # not dukemtmc-reid, ...
    (named / "images").mkdir()
    assert set(found_sets(tmp_path)) == {"market1501", "market1501-500k"}
    fix = by_name(data_findings(tmp_path))["market1501"].fix
    assert fix.endswith(f"reidkit datasets verify market1501 --data-root {tmp_path}")


def test_an_invalid_manifest_in_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / MANIFEST).write_text("format = ")
    found = by_name(data_findings(tmp_path))["people"]
    assert found.status == "problem"
    assert found.fix == f"Fix or remove {tmp_path / 'people' / MANIFEST}"


REPORTS = {
    "good": (Finding("PyTorch", "torch", "ok", "2.9"), Finding("Data", "x", "absent", "-")),
    "bad": (Finding("PyTorch", "torch", "problem", "broken", "Run: pip install torch"),),
}


def test_the_command_succeeds_while_a_network_can_run(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidkit.doctor.examine", lambda root: Report(REPORTS["good"]))
    assert run("doctor").splitlines()[:2] == ["PyTorch", "  ok      torch  2.9"]
    document = json.loads(run("doctor", "--json"))
    assert document["can_run"] and document["problems"] == 0
    assert document["findings"][0]["found"] == "2.9"


def test_the_command_fails_after_its_report_when_nothing_can_run(
    command: Callable[..., tuple[object, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidkit.doctor.examine", lambda root: Report(REPORTS["bad"]))
    status, out, err = command("doctor", "--json")
    assert status == 2 and "neither PyTorch nor ONNX Runtime works" in err
    assert not json.loads(out)["can_run"]
    status, out, _ = command("doctor")
    assert "PROBLEM torch  broken. Run: pip install torch" in out and "1 problem" in out
