"""The other packages that reidkit depends on, and the optional extras."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from reidkit.doctor.finding import Finding
from reidkit.doctor.probes import run_probe

_MODULES = {"pillow": "PIL"}
"""Modules whose names are not the package's with underscores."""
_OWN_SECTION = ("torch", "torchvision", "onnxruntime", "onnxruntime-gpu", "h5py")
_DEVELOPMENT = ("test",)
"""Extras for working on reidkit itself."""


@dataclass(frozen=True)
class Requirement:
    """A requirement of reidkit's metadata: `numpy>=1.26`, `pyarrow>=15; extra == "parquet"`."""

    name: str
    minimum: str
    extra: str

    @classmethod
    def parse(cls, text: str) -> Requirement:
        name = re.match(r"[\w.-]+", text)
        minimum = re.search(r">=\s*([\w.]+)", text.partition(";")[0])
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", text)
        assert name is not None, text
        return cls(
            name[0].lower().replace("_", "-"),
            minimum[1] if minimum else "0",
            extra[1] if extra else "",
        )

    @property
    def module(self) -> str:
        return _MODULES.get(self.name, self.name.replace("-", "_"))


def installed_version(name: str) -> str:
    """The version of an installed package; "" without one."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def missing_packages() -> dict[str, str]:
    """The required packages that are not there, by module, as in an installation for serving alone;
    without ONNX Runtime, which has several packages."""
    try:
        texts = metadata.requires("reidkit") or []
    except metadata.PackageNotFoundError:
        return {}
    required = [r for r in map(Requirement.parse, texts) if not r.extra]
    return {
        r.module: r.name
        for r in required
        if not r.name.startswith("onnxruntime") and find_spec(r.module) is None
    }


def package_findings() -> list[Finding]:
    """Required packages on one line, or one line for each problem; then HDF5 and the extras."""
    try:
        texts = metadata.requires("reidkit") or []
    except metadata.PackageNotFoundError:
        fix = "Run in the folder of its source: pip install ."
        return [Finding("Packages", "reidkit", "absent", "not installed as a package", fix)]
    requirements = [Requirement.parse(text) for text in texts]
    required = [r for r in requirements if not r.extra and r.name not in _OWN_SECTION]
    findings = _required_findings(required)
    findings.append(_hdf5_finding())
    for extra in dict.fromkeys(r.extra for r in requirements if r.extra):
        if extra not in _DEVELOPMENT:
            findings.append(_extra_finding(extra, [r for r in requirements if r.extra == extra]))
    return findings


def _required_findings(required: list[Requirement]) -> list[Finding]:
    versions = {r.name: installed_version(r.name) for r in required}
    present = [r for r in required if versions[r.name]]
    probe = run_probe("imports", " ".join(r.module for r in present))
    errors = probe.found.get("errors", {})
    problems = [_problem("imports", probe.error)] if probe.error else []
    for r in required:
        if not versions[r.name]:
            problems.append(_missing(r.name))
        elif _release(versions[r.name]) < _release(r.minimum):
            problems.append(_problem(r.name, f"{versions[r.name]}, expected {r.minimum} or newer"))
        elif r.module in errors:
            problems.append(_problem(r.name, errors[r.module]))
    named = {problem.name for problem in problems}
    good = ", ".join(f"{name} {v}" for name, v in versions.items() if v and name not in named)
    return [Finding("Packages", "required", "ok", good), *problems] if good else problems


def _missing(name: str) -> Finding:
    """A required package that is not there: a problem, unless PyTorch is not there, either; that is
    an installation for serving alone."""
    if installed_version("torch"):
        return _problem(name, "not installed")
    fix = f"For more than serving, run: pip install {name}"
    return Finding("Packages", name, "absent", "not installed", fix)


def _problem(name: str, found: str) -> Finding:
    wanted = "reidkit" if name == "imports" else name
    return Finding("Packages", name, "problem", found, f"Run: pip install --upgrade {wanted}")


def _hdf5_finding() -> Finding:
    if not installed_version("h5py"):
        return _missing("h5py")
    probe = run_probe("hdf5")
    if probe.error:
        fix = "Run: pip install --force-reinstall h5py"
        return Finding("Packages", "HDF5", "problem", probe.error, fix)
    found = probe.found
    return Finding("Packages", "HDF5", "ok", f"{found['hdf5']} (h5py {found['version']})")


def _extra_finding(extra: str, requirements: list[Requirement]) -> Finding:
    versions = {r.name: installed_version(r.name) for r in requirements}
    missing = [name for name, version in versions.items() if not version]
    if missing:
        text, fix = f"without {', '.join(missing)}", f"Run: pip install 'reidkit[{extra}]'"
        return Finding("Packages", f"extra {extra}", "absent", text, fix)
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Finding("Packages", f"extra {extra}", "ok", found)


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version: "2.15.0+cu128" -> (2, 15, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
