"""The encoded images of a request: its body, or the files of a form."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.requests import Request

# It logs a warning for every malformed form; the client gets the error, and the log stays readable.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

RAW = "application/octet-stream"
IMAGE_TYPES = {"image/jpeg", "image/png", "image/webp", "image/bmp", RAW}
"""Content types of a body that is one image. Its bytes say which format it is."""
FORM = "multipart/form-data"
EXAMPLE = "-F image=@person.jpg"
"""Of curl, in messages."""


async def read_images(request: Request, max_images: int) -> list[bytes]:
    """The encoded images of a request: its body, or the files of a multipart form.

    Raises:
        HTTPException: 400 if there is none, one is empty or the form is malformed; 413 if there
            are more than `max_images`; 415 if the body is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        images = await _read_form(request, max_images)
    elif kind in IMAGE_TYPES:
        images = [await request.body()]
    else:
        expected = f"{FORM} or one of {', '.join(sorted(IMAGE_TYPES))}"
        raise HTTPException(415, f"found Content-Type {kind or 'none'}, expected {expected}")
    if not images:
        raise HTTPException(400, f"the form contains no file; expected one such as {EXAMPLE}")
    if not all(images):
        raise HTTPException(400, "an image is empty")
    return images


def too_many_images(limit: int) -> HTTPException:
    """The refusal of a request of more than `limit` images."""
    return HTTPException(
        413,
        f"the request has more than {limit} image{'s' if limit > 1 else ''}. Send fewer, or start "
        "the server with a larger --max-images",
    )


async def _read_form(request: Request, max_images: int) -> list[bytes]:
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise HTTPException(
            400,
            f"found Content-Type {FORM} without a boundary, expected {FORM}; boundary=... Leave "
            f"the header to the client: curl {EXAMPLE}",
        )
    files = _FormFiles(max_images)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": files.on_header_field,
                "on_header_value": files.on_header_value,
                "on_header_end": files.on_header_end,
                "on_headers_finished": files.on_headers_finished,
                "on_part_data": files.on_part_data,
                "on_part_end": files.on_part_end,
                "on_end": files.on_end,
            },
        )
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                parser.write(chunk)
    except FormParserError as error:
        raise HTTPException(
            400,
            "the form is malformed, or the boundary in its Content-Type is not the one of its "
            f"body. Leave both to the client: curl {EXAMPLE}",
        ) from error
    if not files.complete:
        raise HTTPException(400, "the form ends before its last boundary; send it again")
    return files.images


class _FormFiles:
    """Callbacks of the multipart parser, which collect the files of a form.

    Attributes:
        images: contents of the files.
        complete: whether the last boundary was read.
    """

    def __init__(self, max_images: int) -> None:
        self.images: list[bytes] = []
        self.complete = False
        self._max_images = max_images
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""
        self._data = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        """Refuses a part that is not a file, or is one file too many, before its content."""
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        if b"filename" not in options:
            name = options.get(b"name", b"").decode("utf-8", "replace")[:40]
            raise HTTPException(
                400, f"the form's field {name!r} is text, expected a file: {EXAMPLE}, with @"
            )
        if len(self.images) == self._max_images:
            raise too_many_images(self._max_images)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def on_part_end(self) -> None:
        self.images.append(bytes(self._data))
        self._data.clear()

    def on_end(self) -> None:
        self.complete = True
