"""Processes that work side by side on tasks whose results are wanted in order.

Pools of the standard library share queues and locks: a process that is killed takes a task or a lock with it, and the
others wait for ever. Here each has a pipe of its own, which ends with the process at either side of it.
"""

import multiprocessing
import queue
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

from tool_error import ToolError


def serve(pipe, start, arguments):
    """A process's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first ends the others
    work = start(*arguments)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):  # the first process has ended
            return
        result = work(task)
        with suppress(OSError):
            pipe.send(result)


class Worker:
    """A process, and the near end of its pipe."""

    def __init__(self, context, start, arguments):
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=serve, args=(far_end, start, arguments), daemon=True)
        self.process.start()
        far_end.close()

    def work(self, task):
        try:
            self.pipe.send(task)
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise ToolError(how_it_ended(self.process.exitcode)) from None

    def stop(self):
        self.process.kill()
        self.process.join()


def how_it_ended(code):
    if code < 0:
        return (f"a tokenising process was killed by signal {-code}, as processes are when memory runs out; give fewer "
                "--processes, or more memory")
    return f"a tokenising process ended with status {code}; mend what its messages say"


def in_order(start, arguments, tasks, processes):
    """start(*arguments)(task) of every task, in order; start() is called once in each process. At most two tasks a
    process are under way, so that memory stays flat."""
    context = multiprocessing.get_context("spawn")
    workers = [Worker(context, start, arguments) for _ in range(processes)]
    idle = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def work(task):
        worker = idle.get()
        try:
            return worker.work(task)
        finally:
            idle.put(worker)

    tasks, threads = iter(tasks), ThreadPoolExecutor(processes)  # a thread waits for a process
    try:
        under_way = deque(threads.submit(work, task) for task in islice(tasks, 2 * processes))
        while under_way:
            yield under_way.popleft().result()
            under_way.extend(threads.submit(work, task) for task in islice(tasks, 1))
    finally:
        for worker in workers:
            worker.stop()
        threads.shutdown(cancel_futures=True)
