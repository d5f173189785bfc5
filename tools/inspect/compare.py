"""Two hidden-state stores against each other."""

import numpy as np

from progress import Progress
from report import InspectionError, print_table, ranges
from store import IDENTITY, Store, store_files

TITLES = ["block", "layer", "sequences", "equal", "relative RMS", "largest difference", "that differ"]


def pair_up(arguments):
    """Pairs of files of the same block."""
    mine, other = store_files(arguments.path), store_files(arguments.other)
    if len(mine) == len(other) == 1:
        return [(mine[0], other[0])]
    names = {path.name: path for path in other}
    if {path.name for path in mine} != set(names):
        raise InspectionError(f"{arguments.path} and {arguments.other} do not hold the same blocks: convert both with "
                              "the same --block-layers")
    return [(path, names[path.name]) for path in mine]


class Difference:
    """Sums over the sequences that both stores of a block hold. A NaN on one side alone is an infinite difference."""

    def __init__(self):
        self.squares = self.size = self.largest = 0.0

    def add(self, values, expected):
        values, expected = values.astype(np.float64), expected.astype(np.float64)
        difference = np.abs(values - expected)
        difference[(values == expected) | (np.isnan(values) & np.isnan(expected))] = 0
        difference[np.isnan(difference)] = np.inf
        self.squares += float((difference * difference).sum())
        self.size += float((expected[np.isfinite(expected)]**2).sum())
        self.largest = max(self.largest, float(difference.max()))

    def relative_rms(self):
        if self.squares == 0:
            return 0.0
        return float(np.sqrt(self.squares / self.size)) if self.size > 0 else float("inf")


def compare_block(mine, other, progress):
    difference, differing = Difference(), []
    both = np.intersect1d(mine.done(), other.done())
    for sequence in both:
        equal = True
        for (_, raw, values), (_, _, expected) in zip(mine.pieces(sequence), other.pieces(sequence)):
            difference.add(values, expected)
            equal = equal and np.array_equal(values.view(np.uint32), expected.view(np.uint32))
            progress.advance(raw.nbytes)
        if not equal:
            differing.append(int(sequence))
    return {"block": mine.block, "layer": mine.layer, "sequences": int(both.size), "differing": differing,
            "relative_rms": difference.relative_rms(), "largest": difference.largest}


def problems_of(mine, other, figures, tolerance):
    problems = []
    for name in IDENTITY:
        if mine.identity[name] != other.identity[name]:
            problems.append(f"{mine.path}: its {name.replace('_', ' ')} is not that of {other.path}")
    only = np.setxor1d(mine.done(), other.done())
    if only.size > 0:
        problems.append(f"{mine.path} and {other.path}: sequences {ranges(only.tolist())} are done in one only")
    if not figures["relative_rms"] <= tolerance or (tolerance == 0 and figures["differing"]):
        problems.append(f"{mine.path} and {other.path}: sequences {ranges(figures['differing'])} differ, relative RMS "
                        f"{figures['relative_rms']:.3g}")
    return problems


def inspect(arguments):
    blocks, problems = [], []
    pairs = pair_up(arguments)
    progress = None
    for path, other_path in pairs:
        with Store(path) as mine, Store(other_path) as other:
            if mine.shape != other.shape or mine.block != other.block or mine.layer != other.layer:
                raise InspectionError(f"{path} and {other_path} are not comparable: block {mine.block} at layer "
                                      f"{mine.layer} {list(mine.shape)}, and block {other.block} at layer "
                                      f"{other.layer} {list(other.shape)}")
            progress = progress or Progress("compared", len(pairs) * mine.shape[0] * mine.sequence_bytes())
            figures = compare_block(mine, other, progress)
            blocks.append(figures)
            problems += problems_of(mine, other, figures, arguments.tolerance)
    progress.close()
    print_table(TITLES, [[figures["block"], figures["layer"], figures["sequences"],
                          figures["sequences"] - len(figures["differing"]), f"{figures['relative_rms']:.3g}",
                          f"{figures['largest']:.3g}", ranges(figures["differing"]) or "none"] for figures in blocks])
    return {"blocks": blocks}, problems
