"""The Dockerfile agrees with the package, as far as can be tested without Docker."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def copied() -> set[str]:
    return {name for line in instructions("COPY") for name in line.split()[:-1]}


def test_every_stage_starts_from_the_slim_python_image_or_from_another_stage() -> None:
    images = [line.split()[0] for line in instructions("FROM")]
    stages = [line.split(" AS ")[1] for line in instructions("FROM") if " AS " in line]
    assert images == ["python:3.11-slim", "python", "python", "torch-${VARIANT}"]
    assert stages == ["python", "torch-cpu", "torch-cuda"]
    assert instructions("ARG") == ["VARIANT=cpu", "VARIANT"]


def test_what_the_wheel_is_built_from_is_copied() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = PROJECT["project"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"]}
    assert copied() == needed | set(wheel["packages"]) | set(wheel["force-include"])
    assert all((ROOT / name).exists() for name in copied())


def test_only_what_is_copied_is_sent_to_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    for name in ("data", "masks", "runs", ".git", ".venv", "tests"):
        assert not any(fnmatch.fnmatch(name, kept) for kept in copied())


def test_the_cpu_variant_installs_no_cuda_libraries() -> None:
    (script,) = re.findall(r"sed -i '(.*?)' pyproject.toml", DOCKERFILE)
    edited = subprocess.run(
        ["sed", script, "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    names = {
        re.split(r"[^\w-]", line)[0] for line in tomllib.loads(edited)["project"]["dependencies"]
    }
    assert "onnxruntime" in names and not {"onnxruntime-gpu"} & names
    assert "--index-url https://download.pytorch.org/whl/cpu" in DOCKERFILE


def test_the_container_runs_reidkit_as_a_user_without_privileges() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0])[0] in PROJECT["project"]["scripts"]
    assert instructions("USER") == ["reidkit"]
    assert DOCKERFILE.index("\nUSER") < DOCKERFILE.index("\nENTRYPOINT")


def test_volumes_hold_data_masks_runs_and_weights_and_are_documented() -> None:
    volumes = json.loads(instructions("VOLUME")[0])
    environment = dict(pair.split("=") for line in instructions("ENV") for pair in line.split())
    assert set(volumes) == {
        environment["REIDKIT_DATA"],
        environment["TORCH_HOME"],
        f"{instructions('WORKDIR')[-1]}/masks",
        f"{instructions('WORKDIR')[-1]}/runs",
    }
    page = (ROOT / "docs" / "install.md").read_text()
    assert all(f"| `{volume}` |" in page for volume in volumes)
    for command in re.findall(r"^#   (docker build .*)$", DOCKERFILE, re.MULTILINE):
        assert command in page


def test_the_documented_function_mounts_every_volume(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    (block,) = re.findall(r"```bash\n(mkdir .*?)```", page, re.DOTALL)
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    printed = subprocess.run(
        ["bash", "-euc", block],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(printed) == 4
    for line in printed:
        mounted = re.findall(r"-v [^ ]+?:([^ :]+)", line)
        assert mounted == ["/data", "/work/masks", "/work/runs", "/cache/torch"]
    assert printed[2].endswith("reidkit:cuda eval --dataset market1501")
