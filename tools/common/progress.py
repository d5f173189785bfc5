"""Progress of long work."""

import sys
import time


class Progress:
    """Bytes done, rate and time left on standard error: one line that moves on a terminal, else a plain line now and
    then, and none for what is over soon."""

    PLAIN_SECONDS = 10

    def __init__(self, what, total):
        self.what, self.total, self.done = what, total, 0
        self.start = self.last = time.monotonic()
        self.moving = sys.stderr.isatty()
        self.shown = False

    def advance(self, count):
        self.done += count
        now = time.monotonic()
        known = self.done > 0 and self.total > 0  # the rate is not before the first byte, nor is a pipe's size
        if known and now - self.last >= (0.2 if self.moving else self.PLAIN_SECONDS):
            self.last = now
            self.show(now)

    def show(self, now):
        rate = self.done / (now - self.start)
        left = (self.total - self.done) / rate
        text = (f"{self.what}: {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB ({self.done / self.total:.0%}), "
                f"{rate / 1e6:.0f} MB/s, {left:.0f} s left")
        print(f"\r{text:79}" if self.moving else text, end="" if self.moving else "\n", file=sys.stderr, flush=True)
        self.shown = True

    def close(self):
        if self.shown and self.moving:
            print(f"\r{'':79}\r", end="", file=sys.stderr, flush=True)
