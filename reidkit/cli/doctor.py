"""reidkit doctor."""

from __future__ import annotations

import dataclasses
import logging

from reidkit.cli.options import DataRootOption, JsonOption
from reidkit.cli.output import print_json

log = logging.getLogger(__name__)

MARKS = {"ok": "ok", "absent": "-", "problem": "PROBLEM"}


def doctor(data_root: DataRootOption = None, json: JsonOption = False) -> None:
    """Report what works on this machine and how to fix the rest.

    Checks Python, the CPU, memory and disks, the NVIDIA driver, PyTorch, every provider of ONNX
    Runtime (by running a session on it), HDF5, required and optional packages, data sets and part
    mask files. The exit status is 0 as long as a network can run.

    \b
    Examples:
      reidkit doctor
      reidkit doctor --data-root /data --json
    """
    from reidkit.doctor import examine
    from reidkit.errors import RuntimeMissing

    log.info("checking; importing PyTorch takes some seconds")
    report = examine(data_root)
    if json:
        findings = [dataclasses.asdict(finding) for finding in report.findings]
        print_json(
            {
                "can_run": report.can_run,
                "problems": len(report.problems),
                "findings": findings,
            }
        )
    else:
        section = ""
        width = max(len(finding.name) for finding in report.findings)
        for finding in report.findings:
            if finding.section != section:
                section = finding.section
                print(section)
            fix = f". {finding.fix}" if finding.fix else ""
            print(f"  {MARKS[finding.status]:8}{finding.name:{width}}  {finding.found}{fix}")
        count = len(report.problems)
        print(f"{count or 'no'} {'problem' if count == 1 else 'problems'}")
    if not report.can_run:
        raise RuntimeMissing(
            "neither PyTorch nor ONNX Runtime works here, so no network can run. "
            "Run: pip install --force-reinstall torch torchvision onnxruntime"
        )
