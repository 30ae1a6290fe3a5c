"""Latency of `reidkit serve` beside the same embedder in this process, in interleaved pairs.

    python benchmarks/serving.py model.onnx [--index people.index] [--pairs 100] [--crops 1 8 20]

A client on this machine sends JPEG crops over one connection and reads raw floats; locally,
`Runtime.embed` reads the same files. With an index of the model's embeddings, the client reads the
ten nearest entries of every crop from `/search`, and `open_index(...).search` finds them locally.
The ratio of their 95th percentiles should be at most 1.2.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from reidkit.index.opening import open_index
from reidkit.runtime import Runtime
from reidkit.runtime.bench import write_crops

BOUNDARY = "reidkit-benchmark"


@contextmanager
def serving(model: Path, *options: str) -> Iterator[http.client.HTTPConnection]:
    """A connection to `reidkit serve` in a process of its own."""
    command = [sys.executable, "-m", "reidkit", "serve", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            found = re.search(r"listening on http://(\S+);", line)
            if found:
                connection = http.client.HTTPConnection(found[1])
                yield connection
                connection.close()
                break
        else:
            raise SystemExit("".join(lines))
        server.terminate()


def post(connection: http.client.HTTPConnection, path: str, images: list[bytes]) -> bytes:
    """The server's answer about images."""
    kind, body = "image/jpeg", images[0]
    if len(images) > 1:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        head = (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename=a.jpg\r\n"
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode()
        body = b"".join(head + image + b"\r\n" for image in images) + f"--{BOUNDARY}--".encode()
    headers = {"Content-Type": kind, "Accept": "application/octet-stream"}
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(content.decode())
    return content


def embed(connection: http.client.HTTPConnection, images: list[bytes]) -> np.ndarray:
    """Embeddings of images from the server: float32 [N, D]."""
    return np.frombuffer(post(connection, "/embed", images), "<f4").reshape(len(images), -1)


def search(connection: http.client.HTTPConnection, images: list[bytes]) -> np.ndarray:
    """Distances of the nearest entries from the server: float [N, 10]."""
    queries = json.loads(post(connection, "/search", images))["queries"]
    return np.array([[hit["distance"] for hit in query["hits"]] for query in queries])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--index")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 8, 20])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    runtime = Runtime(given.model, given.device)
    folder = tempfile.TemporaryDirectory()
    paths = write_crops(Path(folder.name), max(given.crops))
    images = [path.read_bytes() for path in paths]

    gallery = open_index(given.index) if given.index else None

    def local(count: int) -> np.ndarray:
        rows = runtime.embed(paths[:count])
        if gallery is None:
            return rows
        return np.array([[hit.distance for hit in hits] for hits in gallery.search(rows, 10)])

    options = ["--device", given.device]
    remote = embed
    if gallery is not None:
        options, remote = [*options, "--index", given.index], search
    entries = f", index of {len(gallery):,}" if gallery is not None else ""
    print(f"{given.model}{entries}, {given.pairs} pairs; milliseconds")
    print("crops  local p50    p95  served p50    p95  p50 ratio  p95 ratio  difference")
    with serving(given.model, *options) as connection:
        for count in given.crops:
            served = remote(connection, images[:count])
            difference = float(np.abs(served - local(count)).max())
            times: list[list[float]] = [[], []]
            for pair in range(given.pairs):
                calls = [partial(local, count), partial(remote, connection, images[:count])]
                for which in (0, 1) if pair % 2 else (1, 0):
                    times[which].append(1000 * seconds(calls[which]))
            here, there = (
                (statistics.median(values), float(np.percentile(values, 95))) for values in times
            )
            print(
                f"{count:5}  {here[0]:9.1f}  {here[1]:5.1f}  {there[0]:10.1f}  {there[1]:5.1f}"
                f"  {there[0] / here[0]:9.2f}  {there[1] / here[1]:9.2f}  {difference:10.1e}"
            )


if __name__ == "__main__":
    main()
