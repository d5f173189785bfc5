#!/usr/bin/env python3
"""Sets two tiny conversions side by side, such as a CPU's and a GPU's: what they score, and their losses step by step.

    compare_tiny.py REFERENCE_DIR OTHER_DIR

Directories are those that tools/bench/tiny_run.sh works in. Fails if a perplexity is off by more than 1 %, or a loss by more
than 5 %; losses of the exact path (directory `exact`, --dtype f32) may differ by 1e-4.
"""
import json
import sys
from pathlib import Path

ROWS = ("teacher", "swap_only", "transfer_only", "lora_only", "transfer_lora")
PERPLEXITY_LIMIT, LOSS_LIMIT, EXACT_LIMIT = 1e-2, 5e-2, 1e-4
SHOWN = 8  # steps of a log


def difference(expected, actual):
    """Relative; infinite where a number is none."""
    off = abs(actual - expected) / max(abs(expected), 1e-30)
    return off if off == off else float("inf")


def compare_scores(reference, other):
    print(f"{'':16} {'perplexity':>10} {'':>10} {'recall':>8} {'':>8}")
    worst = 0.0
    for name in ROWS:
        perplexity, recall = ([json.loads((side / f"{name}.{kind}.json").read_text())[key] for side in (reference, other)]
                              for kind, key in (("val", "perplexity"), ("recall", "exact_match")))
        print(f"{name:16} {perplexity[0]:10.4f} {perplexity[1]:10.4f} {recall[0]:8.1%} {recall[1]:8.1%}")
        worst = max(worst, difference(*perplexity))
    return worst


def losses(path):
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "grad_norm" in line}


def compare_losses(log, reference, other):
    """The largest difference of a step's losses."""
    expected, actual = losses(reference / log), losses(other / log)
    if not expected or expected.keys() != actual.keys():
        sys.exit(f"compare_tiny: error: {log}: {len(expected)} and {len(actual)} steps; run both conversions to their end")
    off = {step: difference(expected[step], actual[step]) for step in expected}
    steps = sorted(expected)
    for step in steps[::max(1, len(steps) // SHOWN)]:
        print(f"  step {step:5}  {expected[step]:13.7g} {actual[step]:13.7g}  {off[step]:.1e}")
    print(f"  largest difference {max(off.values()):.1e}")
    return max(off.values())


def main():
    reference, other = (Path(argument) for argument in sys.argv[1:])
    failed = False

    def check(name, found, limit):
        nonlocal failed
        if not found <= limit:
            print(f"{name}: differs by {found:.1e}, more than {limit:.0e}")
            failed = True

    check("perplexity", compare_scores(reference, other), PERPLEXITY_LIMIT)
    logs = sorted(path.relative_to(reference) for path in reference.rglob("*.jsonl"))
    for log in logs:
        print(f"\n{log}")
        check(log, compare_losses(log, reference, other), EXACT_LIMIT if log.parts[0] == "exact" else LOSS_LIMIT)
    return 1 if failed or not logs else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"compare_tiny: error: {error}; run both conversions to their end")
