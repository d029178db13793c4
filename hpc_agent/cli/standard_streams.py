"""The three standard streams of a program: all of them open, and an output that takes nothing more is said once."""

from __future__ import annotations

import os
import sys


def open_missing_streams() -> None:
    """Put the null device in the place of standard streams that were closed (``<&-``).

    Otherwise the next file that is opened, a record perhaps, gets the number of one of them, and what a program prints
    goes into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one; programs that we start get it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - until our end


def drop_broken_output(error: OSError) -> bool:
    """Whether ``error`` came from printing, as to a full disk; what stdout still holds is then dropped."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__") != "click.utils":
        return False
    # Python would try again at the program's end, and complain in its own way.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True
