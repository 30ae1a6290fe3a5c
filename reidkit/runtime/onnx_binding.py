"""Runs of an ONNX Runtime session whose input and output stay in buffers of a device.

All that runs of a session have to know of devices. Buffers on the device "cpu" take the same path.
"""

from __future__ import annotations

import itertools
import queue
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SHAPES = 8
"""Input shapes of which a caller keeps buffers; the least recently used ones are dropped."""


@dataclass(frozen=True)
class _Buffers:
    """Input and output of one shape on the device, bound to a session, and the options of a run."""

    input: Any
    output: Any
    binding: Any
    options: Any


class DeviceBinding:
    """Runs a session by ONNX Runtime's IO binding, in buffers that are reused.

    Each of the threads that run at once has its own buffers, one pair for each shape of the input.
    ONNX Runtime gives runs at the same time their own streams, so that the copies of one overlap
    with the computation of another. The input is copied from the caller's array: ONNX Runtime's
    Python interface has no page-locked host memory for CUDA.

    A CUDA graph replays addresses. It is captured for each pair of buffers after a first plain run,
    which tells the shape of the output. ONNX Runtime keeps graphs by thread or by session,
    depending on its version; with one caller at a time both are right.

    Args:
        session: to run; its input is copied to the device in every run, its output back.
        input, output: their names.
        device: "cpu" or "cuda".
        index: number of the device.
        callers: number of threads that run at once; others wait. 1 with CUDA graphs.
        graph: capture and replay CUDA graphs; the session was opened for them (`open_session`).
    """

    def __init__(
        self,
        session: Any,
        input: str,
        output: str,
        *,
        device: str,
        index: int = 0,
        callers: int = 1,
        graph: bool = False,
    ) -> None:
        assert callers == 1 or not graph, "runs with CUDA graphs may not overlap"
        self.graph = graph
        self._session = session
        self._input, self._output = input, output
        self._device, self._index = device, index
        self._graphs = itertools.count()  # of each pair of buffers its own, never used again
        self._idle: queue.SimpleQueue[OrderedDict[tuple[int, ...], _Buffers]] = queue.SimpleQueue()
        for _ in range(callers):
            self._idle.put(OrderedDict())

    def run(self, array: NDArray[Any]) -> Any:
        """The output for an input, in memory of its own; what ONNX Runtime returns where it is not
        a tensor.

        Raises ONNX Runtime's errors (`onnx_session.session_errors`).
        """
        kept = self._idle.get()
        try:
            buffers = kept.pop(array.shape, None)
            if buffers is None:
                buffers = self._allocate(array)
                if not buffers.output.is_tensor():
                    return buffers.output
            else:
                buffers.input.update_inplace(array)
                self._session.run_with_iobinding(buffers.binding, buffers.options)
            kept[array.shape] = buffers
            if len(kept) > MAX_SHAPES:
                kept.popitem(last=False)
            return np.array(buffers.output.numpy())
        finally:
            self._idle.put(kept)

    def _allocate(self, array: NDArray[Any]) -> _Buffers:
        """Buffers for inputs of the shape of `array`, after a run on it."""
        import onnxruntime as ort

        source = ort.OrtValue.ortvalue_from_shape_and_type(
            array.shape, array.dtype, self._device, self._index
        )
        source.update_inplace(array)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, source)
        binding.bind_output(self._output, self._device, self._index)
        # -1: this run captures no graph
        self._session.run_with_iobinding(binding, self._options(-1))
        output = binding.get_outputs()[0]
        if output.is_tensor():
            binding.bind_ortvalue_output(self._output, output)
        return _Buffers(source, output, binding, self._options(next(self._graphs)))

    def _options(self, graph: int) -> Any:
        options = run_options()
        if self.graph:
            options.add_run_config_entry("gpu_graph_id", str(graph))
        return options


def run_options() -> Any:
    """Options of a run that logs no errors: `onnx_session.session_errors` reports them."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    return options
