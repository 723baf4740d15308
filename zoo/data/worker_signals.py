"""Loader processes leave the signals that stop a run to the process that trains, which saves and then ends them.

`timeout`, a terminal, systemd and SLURM send a signal to all processes of a run at once. A loader process that ended by
it would take the run along before that has saved. Only what its parent sends ends a loader process: torch and Python
stop one so that does not leave by itself. Where a process cannot ask who sent a signal (macOS, Windows), nothing is
changed.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.processes import STOPPING

CAN_ASK = hasattr(signal, "sigwaitinfo")


@contextmanager
def signals_held() -> Iterator[None]:
    """Signals wait while this lasts; a process that is started meanwhile begins with them held."""
    if not CAN_ASK:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent(worker: int) -> None:
    """Hold the signals in this loader process, and end by one that its parent sends; a `worker_init_fn`."""
    if CAN_ASK:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo(STOPPING).si_pid != parent:
        pass
    os._exit(0)
