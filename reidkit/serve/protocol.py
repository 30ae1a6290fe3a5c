"""The Open Inference Protocol v2 over HTTP: requests and responses, JSON and binary.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol

The input is `images`, uint8 RGB of the network's size; the output is `embeddings`, float32,
L2-normalised. With the binary tensor data extension, tensors follow the JSON object as raw
little-endian bytes.
"""

# B images, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reidkit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT, OUTPUT = "images", "embeddings"
VERSION = "1"
"""Of the model: a server has one."""
HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header: bytes of the JSON object at the start of a body that contains binary tensors."""


@dataclass(frozen=True)
class InferRequest:
    """An inference request.

    Attributes:
        id: of the request, repeated in the response; "" without one.
        pixels: uint8 [B, H, W, 3], or clips [B, T, H, W, 3].
        binary: whether the output is wanted as raw bytes.
    """

    id: str
    pixels: NDArray[np.uint8]
    binary: bool


def input_shape(size: tuple[int, int], frames: int) -> list[int]:
    """The shape in the model's metadata, -1 where it is free."""
    return [-1, *([-1] if frames else []), *size, 3]


def parse_request(body: bytes, header_length: str | None, shape: list[int]) -> InferRequest:
    """Reads a request.

    Args:
        header_length: value of the HTTP header `HEADER_LENGTH`; None without it.
        shape: as `input_shape` gives it.
    Raises:
        DataError: if it is not a request for this model.
    """
    length = len(body) if header_length is None else _header_length(header_length, len(body))
    try:
        request = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise DataError(f"the request is not JSON: {error}") from error
    inputs = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise DataError(f'expected a JSON object with "inputs": [one tensor named {INPUT!r}]')
    tensor = inputs[0]
    found = f"{tensor.get('name')} {tensor.get('datatype')} {tensor.get('shape')}"
    expected = f"{INPUT} UINT8 {shape}"
    if tensor.get("name") != INPUT or tensor.get("datatype") != "UINT8":
        raise DataError(f"found the input {found}, expected {expected}")
    sizes = tensor.get("shape")
    fits = (
        isinstance(sizes, list)
        and len(sizes) == len(shape)
        and all(type(size) is int and size > 0 for size in sizes)
        and all(wanted in (-1, size) for size, wanted in zip(sizes, shape, strict=True))
    )
    if not fits:
        raise DataError(f"found the input {found}, expected {expected}")
    assert isinstance(sizes, list)
    values = _values(tensor, body[length:])
    if values.size != int(np.prod(sizes, dtype=object)):
        raise DataError(f"the input {found} contains {values.size} values")
    return InferRequest(
        id=str(request.get("id") or ""),
        pixels=values.reshape(sizes),
        binary=_wants_binary(request),
    )


def format_response(
    rows: NDArray[np.float32], *, model: str, id: str = "", binary: bool = False
) -> tuple[bytes, int | None]:
    """A response with the embeddings, float32 [B, D]: its body, and the value of `HEADER_LENGTH`
    (None without binary tensors)."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(rows.shape)}
    response: dict[str, Any] = {"model_name": model}
    if id:
        response["id"] = id
    response["outputs"] = [output]
    if not binary:
        output["data"] = rows.ravel().tolist()
        return json.dumps(response).encode(), None
    data = rows.astype("<f4").tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    header = json.dumps(response).encode()
    return header + data, len(header)


def model_metadata(model: str, shape: list[int], dimension: int) -> dict[str, Any]:
    """The answer to a request for the model's metadata."""
    return {
        "name": model,
        "versions": [VERSION],
        "platform": "reidkit",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": shape}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, dimension]}],
    }


def _header_length(text: str, size: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) > size:
        raise DataError(f"{HEADER_LENGTH}: found {text[:20]}, expected 0 to {size}")
    return int(text)


def _values(tensor: dict[str, Any], binary: bytes) -> NDArray[np.uint8]:
    """The values of the input, flat, from its `data` or from the bytes after the JSON object."""
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        if size != len(binary):
            raise DataError(f"binary_data_size is {size}, but {len(binary)} bytes follow the JSON")
        return np.frombuffer(binary, np.uint8)
    try:
        values = np.array(tensor.get("data"))
    except ValueError as error:
        raise DataError(f'"data" of {INPUT} is not a tensor: its rows differ in length') from error
    if values.dtype.kind not in "iu" or not values.size or values.min() < 0 or values.max() > 255:
        raise DataError(f'"data" of {INPUT} must be integers from 0 to 255')
    return values.astype(np.uint8).ravel()


def _wants_binary(request: dict[str, Any]) -> bool:
    """What the request says of its output.

    Raises:
        DataError: if it asks for another output.
    """
    wanted = bool(_parameters(request).get("binary_data_output", False))
    outputs = request.get("outputs") or []
    if not isinstance(outputs, list):
        raise DataError('"outputs" must be a list')
    for output in outputs:
        if not isinstance(output, dict) or output.get("name") != OUTPUT:
            raise DataError(f'"outputs" may only contain the output {OUTPUT!r}')
        wanted = bool(_parameters(output).get("binary_data", wanted))
    return wanted


def _parameters(table: dict[str, Any]) -> dict[str, Any]:
    parameters = table.get("parameters")
    return parameters if isinstance(parameters, dict) else {}
