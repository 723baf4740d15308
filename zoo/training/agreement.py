"""Signals ask a run to save and stop, and all its processes do so after the same update."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from zoo.processes import STOPPING, World

GO_ON, SAVE, STOP = range(3)
"""What the processes agree on after an update."""
APART = 1.0
"""Seconds between two Ctrl-C that are meant as two: `timeout` and torchrun send one of them twice."""


class Agreement:
    """The processes' votes after each update.

    The vote of one update is counted in the background and known after the next, so no update waits for it.
    """

    def __init__(self, world: World) -> None:
        self.leads = world.leads
        self.asked = 0.0
        """When a signal came first, in seconds; 0 if none did."""
        self.group: Any = dist.new_group(backend="gloo") if world.size > 1 else None
        self.votes = torch.zeros(1, dtype=torch.int32)
        self.counting: Any = None

    def after_update(self, save: bool) -> int:
        """GO_ON, SAVE or STOP, the same for every process; `save` says that this one wants a checkpoint."""
        vote = STOP if self.asked else SAVE if save else GO_ON
        if self.group is None:
            return vote
        agreed = GO_ON
        if self.counting is not None:
            self.counting.wait()
            agreed = int(self.votes)
        self.votes = torch.tensor([vote], dtype=torch.int32)
        self.counting = dist.all_reduce(self.votes, dist.ReduceOp.MAX, self.group, async_op=True)
        return agreed

    def wait_for_all(self) -> None:
        """Return when every process is here: torchrun ends all of them once one has ended."""
        if self.group is not None:
            dist.barrier(self.group)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, a signal is a vote to stop instead of the end of the process.

        A second Ctrl-C ends a process that is on its own, with KeyboardInterrupt. What is ignored stays ignored, as a
        shell has Ctrl-C of what it runs in the background. Python handles signals in the main thread only, so in
        another one this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._ask) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self.group is None and self.asked and now - self.asked > APART:
            raise KeyboardInterrupt
        if not self.asked and self.leads:  # by its number: a file object may be in the middle of a line
            os.write(2, b"\nzoo: a signal came; saving after this update\n")
        self.asked = self.asked or now
