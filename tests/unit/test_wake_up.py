"""Wake-up by signal handlers: none is lost, and none waits for a lock."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from hpc_agent.wake_up import WakeUp

FLOOD = """
import signal, time
from hpc_agent.wake_up import WakeUp

wake = WakeUp()
wake.on_signals([signal.SIGALRM], wake.set)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
turns, end = 0, time.monotonic() + 2
while time.monotonic() < end:
    wake.wait(5)
    turns += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(turns)
"""

BETWEEN_STEPS = """
import os, signal, sys, threading
from hpc_agent.wake_up import WakeUp

wake = WakeUp()
wake.on_signals([signal.SIGUSR1], wake.set)
sys.setswitchinterval(1e-6)

def send():
    while True:
        os.kill(os.getpid(), signal.SIGUSR1)
        sent.wait()
        sent.clear()

# While another thread runs, the one that waits is often between its last step and the call that blocks.
sent = threading.Event()
threading.Thread(target=send, daemon=True).start()
for _ in range(3000):
    assert wake.wait(20), "missed"
    sent.set()
"""


def test_a_signal_just_before_the_wait_blocks_ends_it() -> None:
    subprocess.run([sys.executable, "-c", BETWEEN_STEPS], timeout=120, check=True)


def test_handlers_that_come_at_any_moment_block_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", FLOOD], text=True, capture_output=True, timeout=120, check=True)
    assert int(done.stdout) > 100


def test_what_was_set_before_ends_the_next_wait_and_only_that() -> None:
    wake = WakeUp()
    for _ in range(3):
        wake.set()
    began = time.monotonic()
    wake.wait(60)
    assert time.monotonic() - began < 30
    began = time.monotonic()
    wake.wait(0.2)
    assert time.monotonic() - began >= 0.2


def test_a_handler_ends_a_wait() -> None:
    wake = WakeUp()
    before = signal.signal(signal.SIGALRM, lambda *_: wake.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        began = time.monotonic()
        wake.wait(60)
        assert time.monotonic() - began < 30
    finally:
        signal.signal(signal.SIGALRM, before)
