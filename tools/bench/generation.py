#!/usr/bin/env python3
"""Measures generation by length of context and batch, student against teacher, as a table and a plot.

    tools/bench/generation.py run BENCH_GENERATION MODEL OUT.jsonl [--attention ...] [--batch ...] [OPTIONS]
    tools/bench/generation.py show OUT.jsonl... [--png OUT.png]

`run` adds to OUT.jsonl what bench_generation prints; further options go to it (--window, --dtype, ...).
`show` needs matplotlib for the plot only.
"""

import argparse
import json
import subprocess
from pathlib import Path

STEPS = {"teacher": 16}     # in a round; a student's are whole windows, in which every key is folded once
STUDENT_STEPS = 128


def run(a, options):
    with open(a.out, "a", encoding="utf-8") as out:
        for attention in a.attention:
            for batch in a.batch:
                steps = STEPS.get(attention, STUDENT_STEPS)
                line = [a.bench, ",".join(map(str, a.contexts)), "--model", a.model, "--attention", attention,
                        "--batch-size", str(batch), "--max-new-tokens", str(steps), *options]
                done = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                out.write(done.stdout)
                out.flush()


def read(paths):
    """{(attention, batch): {context: measurement}}; of several measurements, the fastest."""
    found = {}
    for path in paths:
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            row = found.setdefault((line["attention"], line["batch"]), {})
            before = row.get(line["context"])
            if before is None or line["milliseconds"] < before["milliseconds"]:
                row[line["context"]] = line
    return found


def table(found):
    contexts = sorted({context for row in found.values() for context in row})
    print("| tokens/s (state or cache a text) | " + " | ".join(f"{c:,}" for c in contexts) + " |")
    print("|---" * (len(contexts) + 1) + "|")
    for (attention, batch), row in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        cells = [f"{row[c]['tokens_per_second']:,.1f}" if c in row else "" for c in contexts]
        size = max(line["state_bytes"] for line in row.values())
        print(f"| {attention}, batch {batch} ({size / 1e6:.2f} MB) | " + " | ".join(cells) + " |")


def plot(found, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    batches = sorted({batch for _, batch in found})
    figure, axes = plt.subplots(1, len(batches), figsize=(5 * len(batches), 4), squeeze=False)
    for axis, batch in zip(axes[0], batches):
        for attention in sorted({kind for kind, b in found if b == batch}):
            row = sorted(found[attention, batch].items())
            axis.plot([c for c, _ in row], [m["tokens_per_second"] for _, m in row], marker="o", label=attention)
        axis.set(xscale="log", yscale="log", xlabel="tokens of context", ylabel="tokens/s, all texts together",
                 title=f"batch {batch}")
        axis.set_xscale("log", base=2)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("run")
    for name in ("bench", "model", "out"):
        measure.add_argument(name)
    measure.add_argument("--attention", nargs="+", default=["terrace", "sliding", "teacher"])
    measure.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    measure.add_argument("--contexts", nargs="+", type=int, default=[1024, 2048, 4096, 8192, 16384, 32768])
    show = commands.add_parser("show")
    show.add_argument("results", nargs="+")
    show.add_argument("--png")
    a, options = parser.parse_known_args()
    if a.command == "run":
        run(a, options)
        return
    if options:
        parser.error(f"unknown: {' '.join(options)}")
    found = read(a.results)
    table(found)
    if a.png:
        plot(found, a.png)


if __name__ == "__main__":
    main()
