#!/usr/bin/env python3
"""How time grows with the sequence, the layers, the block and the ranks, as a table and a plot.

    tools/bench/scaling.py run OUT.jsonl [--longest 65536] [--rounds 3]
    tools/bench/scaling.py show OUT.jsonl [--png OUT.png]

`run` needs numpy and h5py, and in build/bin (or LOLCATS_BIN) block_405b, for sequences and layers (steps without
reading or writing), and lolcats_convert, for blocks and ranks (a whole run, under mpirun). Rounds go through all
settings in turn, and the fastest counts. `show` needs matplotlib for the plot only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("LOLCATS_BIN", ROOT / "build" / "bin"))
LAYER = {"model": "1b", "width": 256, "intermediate": 704, "heads": 4, "kv-heads": 4, "head-dim": 64,
         "vocabulary": 512, "batch-size": 1}
DEPTH = 8  # of the model that is trained in blocks
TITLES = {"T": "tokens in a sequence", "L": "layers", "k": "layers in a block", "ranks": "ranks x threads"}


def step(stage, threads, **settings):
    """Tokens a second of block_405b."""
    line = [str(BIN / "block_405b"), "--stage", stage, "--timing-only"]
    for name, value in {**LAYER, **settings}.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return json.loads(done.stdout)["tokens_per_second"]


def conversion(model, block_layers, ranks, threads):
    """Tokens a second of a whole lolcats_convert."""
    with tempfile.TemporaryDirectory() as work:
        line = ["mpirun", "-n", str(ranks), str(BIN / "lolcats_convert"), "--model", str(model), "--tokens",
                str(model / "tokens.h5"), "--work", work, "--block-layers", str(block_layers), "--batch-size", "8",
                "--epochs", "2", "--checkpoint-every", "0"]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        report = json.loads((Path(work) / "transfer" / "run.json").read_text(encoding="utf-8"))
        return report["tokens"] / report["seconds"]["largest"]


def settings(model, longest):
    """(what grows, its value, stage, how to measure) of every point."""
    length = 1024
    while length <= longest:
        for stage in ("lora", "teacher"):
            if stage == "lora" or length <= 16384:  # softmax attention takes the square
                yield "T", length, stage, lambda s=stage, n=length: step(s, 2, layers=1, model_layers=1, length=n,
                                                                         steps=max(1, 16384 // n))
        length *= 2
    for layers in (1, 2, 4, 8, 16):
        yield "L", layers, "transfer", lambda n=layers: step("transfer", 2, layers=n, model_layers=n, length=1024)
    for layers in (1, 2, 4, 8):
        yield "k", layers, "convert", lambda k=layers: conversion(model, k, 1, 2)
    for ranks, threads in ((1, 1), (1, 2), (2, 1)):
        yield "ranks", f"{ranks} x {threads}", "convert", lambda r=ranks, t=threads: conversion(model, DEPTH // 2, r, t)


def run(a):
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        subprocess.run([sys.executable, str(ROOT / "tools/tiny/make_miniature.py"), "--out", str(model), "--layers",
                        str(DEPTH), "--hidden", "256", "--heads", "4", "--kv-heads", "4", "--intermediate", "704",
                        "--sequences", "16", "--length", "512"], check=True, stdout=subprocess.DEVNULL)
        with open(a.out, "a", encoding="utf-8") as out:
            for _ in range(a.rounds):
                for grows, value, stage, measure in settings(model, a.longest):
                    out.write(json.dumps({"grows": grows, "value": value, "stage": stage, "rate": measure()}) + "\n")
                    out.flush()


def read(path):
    """{(what grows, stage): {value: tokens a second of the fastest round}}"""
    found = {}
    for text in Path(path).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        row = found.setdefault((line["grows"], line["stage"]), {})
        row[line["value"]] = max(line["rate"], row.get(line["value"], 0))
    return found


def table(found):
    """Time of a token, against that of the row's first: 1 is linear growth. A token passes L layers."""
    for (grows, stage), row in found.items():
        print(f"\n| {TITLES[grows]}, {stage} | " + " | ".join(map(str, row)) + " |")
        print("|---" + "|--:" * len(row) + "|")
        print("| tokens/s | " + " | ".join(f"{rate:.0f}" for rate in row.values()) + " |")
        if grows in ("T", "L"):
            first = cost(grows, *next(iter(row.items())))
            print("| time a token and layer | " +
                  " | ".join(f"{cost(grows, *point) / first:.2f}" for point in row.items()) + " |")


def cost(grows, value, rate):
    """Seconds of a token and layer."""
    return 1 / rate / (value if grows == "L" else 1)


def plot(found, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, len(TITLES), figsize=(4.2 * len(TITLES), 3.8))
    for axis, (grows, title) in zip(axes, TITLES.items()):
        for (what, stage), row in found.items():
            if what != grows:
                continue
            values, rates = list(row), list(row.values())
            if grows == "ranks":
                axis.bar(values, rates, label=stage)
                continue
            times = [1e6 * cost(grows, *point) for point in row.items()]
            axis.plot(values, times, marker="o", label=stage)
            axis.set_xscale("log", base=2)
        axis.set(xlabel=title, ylabel="tokens/s" if grows == "ranks" else "microseconds a token" +
                 (" and layer" if grows == "L" else ""))
        axis.set_ylim(bottom=0)
        axis.grid(True, alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("run")
    measure.add_argument("out")
    measure.add_argument("--longest", type=int, default=65536)
    measure.add_argument("--rounds", type=int, default=3)
    show = commands.add_parser("show")
    show.add_argument("results")
    show.add_argument("--png")
    a = parser.parse_args()
    if a.command == "run":
        run(a)
        return
    found = read(a.results)
    table(found)
    if a.png:
        plot(found, a.png)


if __name__ == "__main__":
    main()
