"""Types that msgspec decodes to, made ready for several threads.

msgspec prepares a type when it is first used. Where two threads do that at the same time one of them uses what the
other has not finished, and the interpreter ends with SIGSEGV (msgspec 0.22, tests/unit/test_struct_types.py).
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_prepared: set[Any] = set()


def decodable(type: T) -> T:
    """``type``, which msgspec knows from now on. Wherever more than one thread may decode, a type is named through
    this."""
    if type not in _prepared:
        with _lock:
            msgspec.json.Decoder(type)
            _prepared.add(type)
    return type
