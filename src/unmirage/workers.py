"""Jobs spread over a few processes: tiny models gain nothing from more threads, but two processes do twice as much."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import AsyncResult
from queue import Empty
from typing import Any

Report = Callable[[str, int, int], None]
"""Called with a job's name, what is done and what there is to do."""

Job = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments; it is called with a `Report` as one more argument, the last."""

_channel: Any = None


def spread(jobs: Sequence[Job], workers: int, report: Report) -> list[Any]:
    """Runs the jobs in `workers` processes; their results in order.

    An error or Ctrl-C ends the workers at once, and so does the end of this process, however it comes.
    """
    context = multiprocessing.get_context("spawn")
    channel = context.Manager().Queue()
    with context.Pool(workers, _enter_worker, (channel, os.getpid())) as pool:
        results = [pool.apply_async(_call, job) for job in jobs]
        while not all(result.ready() for result in results):
            _raise_first(results)
            _drain(channel, report, wait=0.2)
        _drain(channel, report, wait=0)
        return [result.get() for result in results]


def _enter_worker(channel: Any, parent: int) -> None:
    """A worker leaves Ctrl-C to its parent, keeps to one thread, and does not outlive its parent."""
    global _channel
    _channel = channel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: an orphan would keep its run folder locked."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(job: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return job(*arguments, lambda name, done, total: _channel.put((name, done, total)))


def _raise_first(results: Sequence[AsyncResult[Any]]) -> None:
    for result in results:
        if result.ready() and not result.successful():
            result.get()


def _drain(channel: Any, report: Report, wait: float) -> None:
    try:
        while True:
            report(*(channel.get(timeout=wait) if wait else channel.get_nowait()))
    except Empty:
        return
