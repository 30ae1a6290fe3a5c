"""Dockerfile.serve agrees with the package, as far as can be tested without Docker."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile.serve").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_image_installs_what_serving_needs_in_the_packages_versions_and_no_pytorch() -> None:
    (line,) = re.findall(r"^RUN pip install +(\".*)$", DOCKERFILE, re.MULTILINE)
    installed = set(re.findall(r'"([^"$]+)"', line))
    declared = {*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]}
    assert installed <= declared
    assert installed >= set(PROJECT["optional-dependencies"]["serve"])
    assert '"${ONNXRUNTIME}>=1.20"' in line
    assert any(name.startswith("onnxruntime-gpu[cuda,cudnn]>=1.20") for name in declared)
    assert "torch" not in DOCKERFILE.replace("PyTorch", "")


def test_the_container_serves_as_a_user_without_privileges() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(entry) == ["reidkit", "serve", "--host", "0.0.0.0", "--port", "8000"]
    assert DOCKERFILE.index("\nUSER reidkit") < DOCKERFILE.index("\nENTRYPOINT")
    assert "http://127.0.0.1:8000/v2/health/ready" in DOCKERFILE and "EXPOSE 8000" in DOCKERFILE


def test_the_container_shows_the_help_when_no_model_is_named() -> None:
    assert DOCKERFILE.rstrip().endswith('CMD ["--help"]')


def test_both_images_copy_the_same_files() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for line in copied for name in line.split()} == kept
