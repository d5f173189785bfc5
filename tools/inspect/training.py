"""Attention transfer as its logs tell it: the loss of every layer by step, the evaluation MSE of every block."""

import json
import re
import struct

import numpy as np

from block_files import block_files
from json_numbers import is_finite
from report import InspectionError, load_pyplot, print_table, ranges

RERUN = "run lolcats_block again"
DEFAULT_MSE_FACTOR = 1000


class Curve:
    """Steps and the values at them, thinned evenly so that a long log stays small. First and last always stay."""

    MOST = 4096

    def __init__(self):
        self.steps, self.values, self.stride, self.count, self.last = [], [], 1, 0, None

    def add(self, step, values):
        self.last = (step, values)
        if self.count % self.stride == 0:
            self.steps.append(step)
            self.values.append(values)
            if len(self.steps) == self.MOST:
                self.steps, self.values, self.stride = self.steps[::2], self.values[::2], 2 * self.stride
        self.count += 1

    def arrays(self):
        steps, values = self.steps, self.values
        if self.last and self.last[0] != steps[-1]:
            steps, values = [*steps, self.last[0]], [*values, self.last[1]]
        return np.array(steps), np.array(values)


def read_line(text):
    """(step, whether it is an evaluation, loss, losses by layer, their MSE where told) of a line; None of another text."""
    try:
        entry = json.loads(text)
        step, is_evaluation = entry["step"], "eval_loss" in entry
        loss, values = (entry[("eval_" if is_evaluation else "") + name] for name in ("loss", "layer_losses"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    errors = entry.get("eval_layer_mse")
    is_log = isinstance(step, int) and isinstance(values, list) and values
    if errors is not None and not (is_log and isinstance(errors, list) and len(errors) == len(values)):
        return None
    return (step, is_evaluation, loss, values, errors) if is_log else None


class BlockLog:
    """One block's log, read line by line."""

    def __init__(self, path):
        self.path, self.problems = path, []
        name = re.fullmatch(r"block_(\d+)\.jsonl", path.name)
        if name is None:
            raise InspectionError(f"{path}: is not named block_XX.jsonl; name a block's log that lolcats_block wrote")
        self.block = int(name[1])
        self.training, self.evaluations = Curve(), Curve()
        self.best = None  # (evaluation loss, step, layer losses, layer MSE or None) of the lowest one
        self.first_errors = None  # layer MSE of the first evaluation
        with open(path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                self.add_line(number, line)
        self.layers = len((self.training.last or self.evaluations.last or (0, []))[1])
        if self.layers == 0:
            self.wrong("holds no losses")

    def wrong(self, what):
        self.problems.append(f"{self.path}: {what}; {RERUN}")

    def add_line(self, number, line):
        entry = read_line(line)
        if entry is None:
            self.wrong(f"line {number} is no line of a log: {line.strip()[:60]!r}")
            return
        step, is_evaluation, loss, values, errors = entry
        if not all(map(is_finite, [loss, *values, *(errors or [])])):
            self.wrong(f"line {number}: a loss of step {step} is not finite")
            return
        curve = self.evaluations if is_evaluation else self.training
        if curve.last and len(values) != len(curve.last[1]):
            self.wrong(f"line {number}: {len(values)} layers where there were {len(curve.last[1])}")
            return
        before = curve.last[0] if curve.last else -1
        if step <= before or (not is_evaluation and step != before + 1):
            self.wrong(f"line {number}: step {step} follows step {before}")
        curve.add(step, values)
        if is_evaluation and (self.best is None or loss < self.best[0]):
            self.best = (loss, step, values, errors)
        if is_evaluation and self.first_errors is None:
            self.first_errors = errors


def log_files(path):
    return block_files(path, "transfer", ".jsonl", "lolcats_block")


FACTORS = ("mse-factor", "xent-factor", "far-xent-factor")


def settings_of(log):
    """The run's weights of MSE and cross-entropy, and its layer-loss, which the block's file of feature maps holds; none
    while it is not written."""
    path = log.path.with_suffix(".safetensors")
    if not path.exists():
        return {}
    try:
        with open(path, "rb") as file:
            length, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        options = json.loads(header["__metadata__"]["run_deck"])["options"]
        settings = {name: options[name] for name in (*FACTORS, "layer-loss") if name in options}
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        settings = None
    if settings is None or not all(is_finite(settings[name]) for name in FACTORS if name in settings):
        log.wrong(f"{path.name} beside it is damaged")
        return {}
    return settings


def check_logs(logs):
    problems = [problem for log in logs for problem in log.problems]
    absent = set(range(logs[-1].block + 1)) - {log.block for log in logs}
    if absent and len(logs) > 1:
        problems.append(f"{logs[0].path.parent}: block {ranges(sorted(absent))} has no log; {RERUN}")
    steps = [log.training.count for log in logs]
    if min(steps) != max(steps):
        short = [log.block for log in logs if log.training.count < max(steps)]
        problems.append(f"{logs[0].path.parent}: block {ranges(short)} has fewer steps than the {max(steps)} of others: "
                        f"not finished; {RERUN}")
    return problems


def figures_of(log, first_layer, factor):
    """Losses by layer. Where the log does not tell the MSE apart, it is the logged loss over its weight."""
    settings = settings_of(log)
    factor = factor or settings.get("mse-factor") or DEFAULT_MSE_FACTOR
    steps, losses = log.training.arrays()
    evaluated, evaluation_losses = log.evaluations.arrays()
    figures = {"block": log.block, "layers": [first_layer, first_layer + log.layers - 1], "steps": steps.tolist(),
               "layer_losses": losses.T.tolist(), "evaluation_steps": evaluated.tolist(),
               "evaluation_layer_losses": evaluation_losses.T.tolist(), "mse_factor": factor,
               "cross_entropy": any(settings.get(name, 0) > 0 for name in FACTORS[1:]),
               "normalized": settings.get("layer-loss") == "normalized"}
    if log.best:
        loss, step, values, errors = log.best
        figures |= {"best_step": step, "best_mse": loss / factor, "best_layer_mse": [value / factor for value in values],
                    "first_mse": float(np.mean(evaluation_losses[0])) / factor,
                    "mse_apart": errors is not None and log.first_errors is not None}
        if figures["mse_apart"]:
            figures |= {"best_mse": float(np.mean(errors)), "best_layer_mse": errors,
                        "first_mse": float(np.mean(log.first_errors))}
    return figures


def print_losses(blocks, rows):
    """Layers down, steps across."""
    steps = max((block["steps"] for block in blocks), key=len)
    picked = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(rows, len(steps)))})
    table = []
    for block in blocks:
        for layer, losses in enumerate(block["layer_losses"], start=block["layers"][0]):
            cells = [f"{losses[i]:.5g}" if i < len(losses) else "-" for i in picked]
            table.append([block["block"], layer, *cells])
    print("training loss by layer and step")
    print_table(["block", "layer", *[str(steps[i]) for i in picked]], table)


def evaluated_as(blocks):
    """What the evaluations' figures are."""
    error = "MSE relative to the teacher's output" if any(block["normalized"] for block in blocks) else "MSE"
    mixed = any(block["cross_entropy"] and not block["mse_apart"] for block in blocks)
    return "loss over its MSE factor (cross-entropy included)" if mixed else error


def print_evaluations(blocks):
    evaluated = [block for block in blocks if "best_mse" in block]
    if not evaluated:
        print("\nno evaluations: no sequences were held out (--validation)")
        return
    print(f"\nevaluation {evaluated_as(evaluated)} by block")
    table = []
    for block in evaluated:
        layers = block["best_layer_mse"]
        worst = int(np.argmax(layers))
        table.append([block["block"], "{}-{}".format(*block["layers"]), f"{block['first_mse']:.5g}",
                      f"{block['best_mse']:.5g}", block["best_step"],
                      f"{layers[worst]:.5g} (layer {block['layers'][0] + worst})"])
    print_table(["block", "layers", "untrained", "best", "at step", "worst layer"], table)


def draw(file, blocks):
    pyplot = load_pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5))
    layers = max(block["layers"][1] for block in blocks) + 1
    colours = pyplot.get_cmap("viridis")
    for block in blocks:
        for layer, losses in enumerate(block["layer_losses"], start=block["layers"][0]):
            left.semilogy(block["steps"], losses, color=colours(layer / layers), linewidth=0.8)
    left.set(xlabel="step", ylabel="loss", title="Training loss by layer")
    scale = pyplot.cm.ScalarMappable(pyplot.Normalize(0, layers - 1), "viridis")
    figure.colorbar(scale, ax=left, label="layer")
    evaluated = [block for block in blocks if "best_mse" in block]
    right.set(title=f"Evaluation {evaluated_as(evaluated)} by block", xlabel="layers")
    if evaluated:
        names = ["{}-{}".format(*block["layers"]) for block in evaluated]
        right.bar(names, [block["best_mse"] for block in evaluated])
        best = [block["best_mse"] for block in evaluated]
        right.set_yscale("log" if max(best) > 10 * min(best) else "linear")
        right.tick_params(axis="x", rotation=60)
    figure.tight_layout()
    figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def inspect(arguments):
    logs = [BlockLog(path) for path in log_files(arguments.path)]
    size = max(log.layers for log in logs)  # layers of a block; only the last may have fewer
    blocks = [figures_of(log, log.block * size, arguments.mse_factor) for log in logs if log.training.count > 0]
    problems = check_logs(logs)
    if not blocks:
        return {"blocks": []}, problems
    print_losses(blocks, arguments.rows)
    print_evaluations(blocks)
    if arguments.png:
        draw(arguments.png, blocks)
    return {"blocks": blocks}, problems
