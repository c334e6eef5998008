"""Silence for what libraries print past Python."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_stderr_is_ours = threading.Lock()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Lose what is written to file descriptor 2: C++ libraries chat there, in part from their own threads.

    MediaPipe does so while a task is made and at its first picture, ExecuTorch when it looks at the processor;
    their errors come as exceptions. One thread at a time, or the second would take the first's silence for the
    real stderr and restore that.
    """
    with _stderr_is_ours:
        with suppress(AttributeError, OSError, ValueError):  # Python's own stderr may be None, broken or closed
            sys.stderr.flush()  # what it still holds belongs to the real one
        try:
            real = os.dup(2)
        except OSError:
            real = None  # closed: there is nothing to keep clean
        try:
            if real is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            yield
        finally:
            if real is not None:
                os.dup2(real, 2)
                os.close(real)
