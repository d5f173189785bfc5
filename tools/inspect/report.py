"""Tables, progress and errors."""

import sys
import time


class InspectionError(Exception):
    """Nothing can be looked at: one line that names the file, what is wrong and the remedy."""


def print_table(titles, rows):
    """Columns as wide as their widest cell, flush right; the last one flush left."""
    cells = [titles, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    for row in cells:
        line = "  ".join(cell.rjust(width) for cell, width in zip(row[:-1], widths))
        print(f"{line}  {row[-1]}".rstrip())


def ranges(numbers):
    """[1, 2, 3, 7] as "1-3, 7"; the middle of a long list is left out."""
    groups = []
    for number in numbers:
        if groups and number == groups[-1][1] + 1:
            groups[-1][1] = number
        else:
            groups.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in groups]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:6], "...", *texts[-5:]])


def load_pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise InspectionError("--png needs matplotlib: install python3-matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot
    return pyplot


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
        if now - self.last >= (0.2 if self.moving else self.PLAIN_SECONDS):
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
