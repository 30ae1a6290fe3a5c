"""CRC-32C (Castagnoli) in NumPy, as LevelDB tables and TensorFlow's checkpoints use it.

A CRC is linear over GF(2), with XOR for addition. Let S be the step that appends a word of zeros.
Two halves of n words each then have the state S^n(first half) XOR (second half), so a block is
folded in the middle until one word is left. Each fold is two table look-ups over a whole array.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

POLYNOMIAL = 0x82F63B78
"""With its bits reversed."""
CHUNK = 1 << 16
"""Words that are folded at a time; a power of two. Its halves stay in the processor's cache."""
MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The CRC-32C of `data` as these files store it: rotated by 15 bits, and a constant added."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The CRC-32C of bytes; 0xE3069283 for b"123456789"."""
    values = np.frombuffer(data, np.uint8)
    whole = len(values) // 4 * 4
    words = values[:whole].view("<u4")
    state = 0xFFFFFFFF
    for start in range(0, len(words), CHUNK):
        state = _append(state, words[start : start + CHUNK])
    for value in values[whole:].tolist():
        state = _append_byte(state ^ value)
    return state ^ 0xFFFFFFFF


def _append(state: int, words: Words) -> int:
    """The state after at least one and at most `CHUNK` words."""
    log2 = (len(words) - 1).bit_length()
    block = np.zeros(1 << log2, np.uint32)  # leading zeros leave a state of zero as it is
    block[-len(words) :] = words
    block[-len(words)] ^= np.uint32(state)
    for step in reversed(range(log2)):
        first, second = np.split(block, 2)
        block = _append_zeros(first, step) ^ second
    return int(_append_zeros(block, 0)[0])


def _append_zeros(states: Words, log2: int) -> Words:
    """States after 2^log2 words of zeros."""
    low, high = _tables(log2)
    appended: Words = low[states & 0xFFFF] ^ high[states >> 16]
    return appended


@lru_cache
def _tables(log2: int) -> tuple[Words, Words]:
    """`_append_zeros` of the lower and of the upper 16 bits, uint32 [65536] each."""
    bits = np.left_shift(1, np.arange(32)).astype(np.uint32)
    if log2 == 0:
        images = np.array([_append_word(int(bit)) for bit in bits], np.uint32)
    else:
        images = _append_zeros(_append_zeros(bits, log2 - 1), log2 - 1)
    return _linear(images[:16]), _linear(images[16:])


def _linear(images: Words) -> Words:
    """All XOR combinations of 16 words: uint32 [65536]."""
    table = np.zeros(1, np.uint32)
    for image in images:
        table = np.concatenate([table, table ^ image])
    return table


def _append_word(state: int) -> int:
    for _ in range(4):
        state = _append_byte(state)
    return state


def _append_byte(state: int) -> int:
    for _ in range(8):
        state = (state >> 1) ^ (POLYNOMIAL if state & 1 else 0)
    return state
