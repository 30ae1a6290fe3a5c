"""reidkit serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.galleries import check_index_name, find_index_model, open_gallery
from reidkit.cli.options import (
    THIRD_PARTY,
    DeviceOption,
    PrecisionOption,
    ProviderOption,
    ThreadsOption,
    TrustOption,
    parse_memory,
    third_party_options,
)

PANELS = {
    "Address": ("host", "port", "token", "name"),
    "Search": ("index",),
    "Batches": ("batch", "max_wait", "max_queue"),
    "Execution": ("device", "threads", "provider", "precision"),
    "Limits": ("max_body", "max_images", "max_pixels", "timeout"),
    "Third-party ONNX models": THIRD_PARTY,
}

MIN_BODY = "64KiB"
"""Of --max-body: a JPEG of 256x128 pixels fits whatever it shows."""


@third_party_options
def serve(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint, run folder or ONNX file.",
            show_default="the index's model, or the newest run",
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            help="Index directory, or qdrant://HOST:6333/COLLECTION, that /search searches.",
            show_default=False,
            callback=check_index_name,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 8000,
    token: Annotated[
        str,
        typer.Option(
            envvar="REIDKIT_TOKEN",
            show_default=False,
            show_envvar=True,
            help="Require this token of clients; other users see options, so prefer the variable.",
        ),
    ] = "",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model in paths.", show_default="the file's name"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Embed at most this many crops at once.")] = 32,
    max_wait: Annotated[
        float,
        typer.Option(min=0, help="Wait this many ms for requests that are being decoded."),
    ] = 5.0,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Refuse requests while this many crops wait.")
    ] = 1024,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
    precision: PrecisionOption = "fp32",
    max_body: Annotated[
        str, typer.Option(help=f"Largest body of a request, at least {MIN_BODY}.")
    ] = "32MiB",
    max_images: Annotated[int, typer.Option(min=1, help="Most images of a request.")] = 256,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels of an image, before it is resized.")
    ] = 16_000_000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = 30.0,
    trust: TrustOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Serve embeddings, and search in an index, over HTTP.

    Answers POST /embed and, with --index, POST /search with images, the Open Inference Protocol
    v2 under /v2, and Prometheus metrics at /metrics. Only this machine can connect; any other
    --host needs a token. Needs the packages of the extra "serve".

    \b
    Examples:
      reidkit serve model.onnx
      curl -F image=@person.jpg http://127.0.0.1:8000/embed
      reidkit serve --index people.index
      curl -F image=@person.jpg 'http://127.0.0.1:8000/search?k=5&camera=3'
      REIDKIT_TOKEN=$(cat token) reidkit serve model.onnx --host 0.0.0.0
    """
    from reidkit.cli.runs import find_model
    from reidkit.config import require
    from reidkit.errors import RuntimeMissing

    path = find_model(model) if index is None else find_index_model(open_gallery(index), model)
    name = path.stem if name is None else name
    require(
        name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum(),
        f"--name {name}: use letters, digits, dots, hyphens and underscores",
    )
    body_bytes = parse_memory(max_body, "--max-body")
    require(
        body_bytes >= parse_memory(MIN_BODY),
        f"--max-body {max_body}: too small for an image; use at least {MIN_BODY}",
    )
    try:
        from reidkit.serve.app import create_app
        from reidkit.serve.batching import BatchLimits
        from reidkit.serve.guard import check_access
        from reidkit.serve.search import IndexSearch
        from reidkit.serve.server import serve_app
        from reidkit.serve.service import ServeSettings
    except ModuleNotFoundError as error:
        raise RuntimeMissing(
            f"serve needs the package {error.name}. Install it: pip install 'reidkit[serve]'"
        ) from error
    check_access(host, token)

    from reidkit.runtime.embedder import load_embedder
    from reidkit.runtime.execution import Execution

    execution = Execution(provider, threads, "latency", precision)
    embedder = load_embedder(path, device=device, inputs=inputs, execution=execution, trust=trust)
    searched = None
    if index is not None:
        searched = IndexSearch(index, embedder, model=path, max_queue=max_queue)
    settings = ServeSettings(
        name=name,
        token=token,
        max_body=body_bytes,
        max_images=max_images,
        max_pixels=max_pixels,
        timeout=timeout,
        batches=BatchLimits(batch, max_wait / 1000, max_queue, embedder.concurrency),
    )
    serve_app(create_app(embedder, settings, index=searched), host=host, port=port, timeout=timeout)
