"""PyTorch and ONNX Runtime: what really computes here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from reidkit.doctor.finding import Finding
from reidkit.doctor.packages import installed_version
from reidkit.doctor.probes import ProbeResult, load_error, run_probe

_REINSTALL_TORCH = "Run: pip install --force-reinstall torch torchvision"
_WHEELS = (
    "onnxruntime",
    *("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-training"),
    *("onnxruntime-rocm", "onnxruntime-qnn", "ort-nightly", "ort-nightly-gpu"),
)
"""Packages that install the same module, `onnxruntime`: only one of them may be there."""
_REMOTE = "AzureExecutionProvider"
"""Sends requests to a remote service; no session can run on it alone."""


def torch_findings(driver: str) -> list[Finding]:
    """PyTorch, its CUDA, and torchvision.

    Args:
        driver: the NVIDIA driver that was found; "" without one.
    """
    if not installed_version("torch"):
        return [
            Finding(
                "PyTorch",
                "torch",
                "absent",
                "not installed; only exported models (.onnx) can be used",
                "Run: pip install torch torchvision",
            )
        ]
    probe = run_probe("torch")
    if probe.error:
        return [Finding("PyTorch", "torch", "problem", probe.error, _REINSTALL_TORCH)]
    found = probe.found
    threads = f"{found['threads']} {'thread' if found['threads'] == 1 else 'threads'}"
    findings = [Finding("PyTorch", "torch", "ok", f"{found['version']}, {threads}")]
    findings.append(_cuda_finding(probe, driver))
    vision = run_probe("torchvision")
    findings.append(
        Finding("PyTorch", "torchvision", "problem", vision.error, _REINSTALL_TORCH)
        if vision.error
        else Finding("PyTorch", "torchvision", "ok", vision.found["version"])
    )
    return findings


def _cuda_finding(probe: ProbeResult, driver: str) -> Finding:
    """CUDA in PyTorch; a problem only where there is a driver."""
    found = probe.found
    if found["cuda"]:
        devices = ", ".join(found["devices"])
        return Finding("PyTorch", "CUDA", "ok", f"built with {found['cuda_build']}; {devices}")
    if not found["cuda_build"]:
        text, fix = "PyTorch was built without CUDA", _REINSTALL_TORCH
    else:
        reason = next(iter(found["warnings"]), "no device found")
        text = f"built with {found['cuda_build']}; {reason.splitlines()[0]}"
        fix = "Update the NVIDIA driver, or check CUDA_VISIBLE_DEVICES with: nvidia-smi"
    if driver:
        return Finding("PyTorch", "CUDA", "problem", text, fix)
    return Finding("PyTorch", "CUDA", "absent", text)


def onnxruntime_findings(driver: str) -> list[Finding]:
    """ONNX Runtime: clashing wheels, its version, and each of its providers.

    Args:
        driver: the NVIDIA driver that was found; "" without one.
    """
    section, name = "ONNX Runtime", "onnxruntime"
    wheels = [wheel for wheel in _WHEELS if installed_version(wheel)]
    wanted = "'onnxruntime-gpu[cuda,cudnn]'" if driver else "onnxruntime"
    if not wheels:
        text = "not installed; exported models (.onnx) cannot be used"
        return [Finding(section, name, "absent", text, f"Run: pip install {wanted}")]
    findings = []
    if len(wheels) > 1:
        findings.append(
            Finding(
                section,
                "wheels",
                "problem",
                f"{' and '.join(wheels)} overwrite each other's files",
                f"Run: pip uninstall -y {' '.join(wheels)} && pip install {wanted}",
            )
        )
    probe = run_probe("onnxruntime")
    if probe.error:
        fix = f"Run: pip install --force-reinstall {wanted}"
        return [*findings, Finding(section, name, "problem", probe.error, fix)]
    findings.append(Finding(section, name, "ok", f"{probe.found['version']} ({wheels[0]})"))
    providers = [provider for provider in probe.found["providers"] if provider != _REMOTE]
    with ThreadPoolExecutor(2) as pool:
        probes = pool.map(lambda provider: run_probe("provider", provider), providers)
        for provider, result in zip(providers, probes, strict=True):
            findings.append(_provider_finding(provider, result, driver))
    return findings


def _provider_finding(provider: str, probe: ProbeResult, driver: str) -> Finding:
    """Whether a session ran on the provider; for NVIDIA's, a problem only where there is a
    driver."""
    section = "ONNX Runtime"
    if not probe.error and probe.found["works"]:
        return Finding(section, provider, "ok", "a session runs on it")
    reason = probe.error or load_error(probe.found["log"]) or "sessions fall back to the CPU"
    if provider == "TensorrtExecutionProvider":
        return Finding(section, provider, "absent", reason, "To use it, run: pip install tensorrt")
    if provider == "CUDAExecutionProvider":
        if not driver:
            return Finding(section, provider, "absent", reason)
        fix = (
            "Run: pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]', or use --device cpu"
        )
        return Finding(section, provider, "problem", reason, fix)
    if provider == "CPUExecutionProvider":
        fix = "Run: pip install --force-reinstall onnxruntime"
        return Finding(section, provider, "problem", reason, fix)
    return Finding(section, provider, "absent", reason)
