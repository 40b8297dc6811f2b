"""Jobs spread over a few processes: tiny models gain nothing from more threads, but two processes do twice as much."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from graphlib import TopologicalSorter
from multiprocessing.managers import SyncManager
from queue import Empty
from typing import Any

from unmirage.errors import UserError
from unmirage.quiet import quiet_libraries

Report = Callable[[str, int, int], None]
"""Called with a job's name, what is done and what there is to do."""

Job = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments; it is called with a `Report` as one more argument, the last."""

_channel: Any = None


def spread(
    jobs: Sequence[Job], workers: int, report: Report, needs: Sequence[Collection[int]] | None = None
) -> list[Any]:
    """Runs the jobs in `workers` processes; their results in order.

    `needs` says of each job the numbers of those that must be done before it; of jobs that may begin, the first begins.
    An error or Ctrl-C ends the workers at once, and so does the end of this process, however it comes. Raises
    CycleError, before anything begins, where jobs wait for one another.
    """
    if not jobs:
        return []
    TopologicalSorter(dict(enumerate(needs or ()))).prepare()
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(_watch_parent, (os.getpid(),))  # it would else outlive a parent that is killed
    with manager:
        channel = manager.Queue()
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _enter_worker, (channel, os.getpid()))
        try:
            results: dict[int, Future[Any]] = {}
            while len(results) < len(jobs) or not all(result.done() for result in results.values()):
                _raise_first(results.values())
                for number in _ready(results, needs or [()] * len(jobs), workers):
                    results[number] = pool.submit(_call, *jobs[number])
                _drain(channel, report, wait=0.2)
            _drain(channel, report, wait=0)
            return [results[number].result() for number in range(len(jobs))]
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was ended from outside, most often because memory ran out; "
                "run the same command again, with fewer --workers."
            ) from error
        finally:
            _end(pool)


def _ready(results: Mapping[int, Future[Any]], needs: Sequence[Collection[int]], workers: int) -> list[int]:
    """The jobs to begin now: no more than there are free workers, so that the order stays a matter of the list."""
    done = {number for number, result in results.items() if result.done()}
    free = workers - (len(results) - len(done))
    waiting = [number for number in range(len(needs)) if number not in results and done.issuperset(needs[number])]
    return waiting[: max(free, 0)]


def _end(pool: ProcessPoolExecutor) -> None:
    """Ends the workers without waiting for what they are at; after a good end there is nothing."""
    at_work = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in at_work:
        process.terminate()
    for process in at_work:
        process.join()


def _enter_worker(channel: Any, parent: int) -> None:
    """A worker leaves Ctrl-C to its parent, keeps to one thread, and does not outlive its parent."""
    global _channel
    _channel = channel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _watch_parent(parent)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet_libraries()
    import torch

    torch.set_num_threads(1)


def _watch_parent(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: an orphan would keep its run folder locked."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(job: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return job(*arguments, lambda name, done, total: _channel.put((name, done, total)))


def _raise_first(results: Iterable[Future[Any]]) -> None:
    for result in results:
        if result.done():
            result.result()


def _drain(channel: Any, report: Report, wait: float) -> None:
    try:
        while True:
            report(*(channel.get(timeout=wait) if wait else channel.get_nowait()))
    except Empty:
        return
