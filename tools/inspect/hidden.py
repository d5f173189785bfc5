"""What is in a hidden-state store: norms, outlier channels, numbers that are not finite, checksums, sequences done."""

from contextlib import ExitStack

import numpy as np

from progress import Progress
from report import InspectionError, load_pyplot, print_table, ranges
from store import RERUN, Store, store_files, check_complete, check_same_run

DAMAGED = f"the file is damaged; {RERUN} with --verify, which computes it anew"


def load_hash():
    try:
        import xxhash
    except ImportError as error:
        raise InspectionError("checksums need xxhash: install python3-xxhash") from error
    return xxhash.xxh3_64


class BlockStatistics:
    """Sums over the sequences of one block, in double. Values that are not finite are counted and left out."""

    def __init__(self, width):
        self.squares = np.zeros(width)  # by channel
        self.rows = 0
        self.nan = self.infinite = 0
        self.largest, self.largest_at = 0.0, None
        self.sequence_rms = []

    def add_sequence(self, sequence, pieces):
        total, count = 0.0, 0
        for first, values in pieces:
            total += self.add_rows(sequence, first, values)
            count += values.size
        self.sequence_rms.append(float(np.sqrt(total / count)))

    def add_rows(self, sequence, first, values):
        finite = np.isfinite(values)
        if not finite.all():
            nan = int(np.isnan(values).sum())
            self.nan += nan
            self.infinite += int(values.size - finite.sum()) - nan
            values = np.where(finite, values, np.float32(0))
        values = values.astype(np.float64)
        sizes = np.abs(values)
        at = int(sizes.argmax())
        if sizes.flat[at] > self.largest:
            row, channel = divmod(at, values.shape[1])
            self.largest, self.largest_at = float(sizes.flat[at]), (int(sequence), first + row, channel)
        squares = (values * values).sum(axis=0)
        self.squares += squares
        self.rows += values.shape[0]
        return float(squares.sum())

    def channel_rms(self):
        return np.sqrt(self.squares / max(1, self.rows))

    def rms(self):
        return float(np.sqrt(self.squares.mean() / max(1, self.rows)))

    def outliers(self, factor):
        """(channel, RMS over the median channel's), largest first."""
        rms = self.channel_rms()
        median = np.median(rms)
        if not median > 0:
            return []
        order = np.argsort(-rms, kind="stable")
        return [(int(channel), float(rms[channel] / median)) for channel in order if rms[channel] > factor * median]


def inspect_block(store, new_hash, progress):
    """The block's statistics, and the sequences whose bytes do not match their checksum."""
    statistics, damaged = BlockStatistics(store.shape[2]), []

    def checked_pieces(sequence):
        digest = new_hash()
        for first, raw, values in store.pieces(sequence):
            digest.update(raw)
            progress.advance(raw.nbytes)
            yield first, values
        if digest.intdigest() != int(store.checksums[sequence]):
            damaged.append(int(sequence))

    for sequence in store.done():
        statistics.add_sequence(sequence, checked_pieces(sequence))
    return statistics, damaged


def figures_of(store, statistics, damaged, factor):
    rms = statistics.sequence_rms
    return {"file": str(store.path), "block": store.block, "layer": store.layer, "sequences": store.shape[0],
            "done": int(store.done().size), "missing": store.missing().tolist(), "damaged": damaged,
            "nan": statistics.nan, "infinite": statistics.infinite, "rms": statistics.rms(),
            "smallest_sequence_rms": min(rms, default=None), "largest_sequence_rms": max(rms, default=None),
            "largest": statistics.largest, "largest_at": statistics.largest_at,
            "outliers": statistics.outliers(factor)}


def problems_of(store, figures):
    problems = check_complete(store)
    for sequence in figures["damaged"]:
        problems.append(f"{store.path}: sequence {sequence} does not match its checksum: {DAMAGED}")
    if figures["nan"] + figures["infinite"] > 0:
        problems.append(f"{store.path}: holds {figures['nan']} NaN and {figures['infinite']} infinite values: {DAMAGED}")
    return problems


def row_of(figures):
    at, outliers = figures["largest_at"], figures["outliers"]
    shown = ", ".join(f"{channel} ({ratio:.1f})" for channel, ratio in outliers[:4])
    rest = f" and {len(outliers) - 4} more" if len(outliers) > 4 else ""
    spread = "-"
    if figures["done"] > 0:
        spread = f"{figures['smallest_sequence_rms']:.4g}..{figures['largest_sequence_rms']:.4g}"
    return [figures["block"], figures["layer"], f"{figures['done']}/{figures['sequences']}", len(figures["damaged"]),
            figures["nan"], figures["infinite"], f"{figures['rms']:.5g}", spread, f"{figures['largest']:.5g}",
            ",".join(map(str, at)) if at else "-", shown + rest or "none"]


TITLES = ["block", "layer", "done", "damaged", "NaN", "inf", "RMS", "of sequences", "largest", "at seq,token,channel",
          "outlier channels (RMS / median)"]


def draw(file, blocks):
    pyplot = load_pyplot()
    layers = [block["layer"] for block in blocks]
    figure, axis = pyplot.subplots(figsize=(8, 5))
    axis.semilogy(layers, [block["rms"] for block in blocks], "o-", label="RMS")
    axis.semilogy(layers, [block["largest"] for block in blocks], "^-", label="largest value")
    worst = [block["rms"] * max([ratio for _, ratio in block["outliers"]], default=1) for block in blocks]
    axis.semilogy(layers, worst, "x", label="RMS times largest channel ratio")
    axis.set(xlabel="layer that the states enter", ylabel="size", title="Residual stream")
    axis.legend()
    figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def inspect(arguments):
    new_hash = load_hash()
    blocks, problems = [], []
    with ExitStack() as stack:
        stores = [stack.enter_context(Store(path)) for path in store_files(arguments.path)]
        first = stores[0]
        total = sum(store.sequence_bytes() * store.done().size for store in stores)
        print(f"{arguments.path}: {len(stores)} blocks of {first.dtype} {list(first.shape)}, {total / 1e9:.3f} GB done")
        problems += check_same_run(stores)
        progress = Progress("hidden states", total)
        for store in stores:
            figures = figures_of(store, *inspect_block(store, new_hash, progress), arguments.outlier_factor)
            blocks.append(figures)
            problems += problems_of(store, figures)
        progress.close()
    print_table(TITLES, [row_of(figures) for figures in blocks])
    for figures in blocks:
        if figures["missing"]:
            print(f"block {figures['block']}: not done: {ranges(figures['missing'])}")
    if arguments.png:
        draw(arguments.png, blocks)
    return {"blocks": blocks}, problems
