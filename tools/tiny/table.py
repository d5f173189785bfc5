#!/usr/bin/env python3
"""Prints the table of the tiny conversion from the evaluations that tools/quickstart.sh left in a directory."""
import json
import pathlib
import sys

ROWS = [("teacher (softmax)", "teacher"), ("swap only", "swap_only"), ("transfer only", "transfer_only"),
        ("swap + LoRA, no transfer", "lora_only"), ("transfer + LoRA (LoLCATs)", "transfer_lora")]


def read(directory, name):
    return json.loads((directory / f"{name}.json").read_text())


def main():
    directory = pathlib.Path(sys.argv[1])
    perplexity = {name: read(directory, f"{name}.val")["perplexity"] for _, name in ROWS}
    recall = {name: read(directory, f"{name}.recall")["exact_match"] for _, name in ROWS}
    gap = perplexity["swap_only"] - perplexity["teacher"]
    print(f"\n{'model':28} {'perplexity':>10} {'recall':>8} {'gap closed':>11}")
    for title, name in ROWS:
        closed = "" if name == "teacher" else f"{(perplexity['swap_only'] - perplexity[name]) / gap:10.1%}"
        print(f"{title:28} {perplexity[name]:10.3f} {recall[name]:8.1%} {closed:>11}")


if __name__ == "__main__":
    main()
