"""Our side: the programs as a user runs them, and for one layer alone the benchmark of a block, which is their code."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from tool_error import ToolError

BIN = Path(os.environ.get("LOLCATS_BIN", Path(__file__).resolve().parents[2] / "build" / "bin"))
PROGRAMS = {"teacher": "lolcats_eval", "transfer": "lolcats_block", "lora": "lolcats_lora"}


def run(line, threads):
    """(standard output and error, peak of resident bytes) of a program that must succeed."""
    environment = {"OMP_PROC_BIND": "false", **os.environ, "OMP_NUM_THREADS": str(threads)}
    if not Path(line[0]).exists():
        raise ToolError(f"{line[0]}: no such program; build it (tools/setup.sh), or name the directory in LOLCATS_BIN")
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=environment) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read())
    if process.returncode != 0:
        raise ToolError(f"{' '.join(line)}: status {process.returncode}: {texts[1][-500:]}")
    return *texts, usage.ru_maxrss * 1024


def program_line(files, task, steps, work, *more):
    shape = files.shape
    tokens = files.many_tokens if task == "teacher" and steps > 1 else files.tokens
    line = [str(BIN / PROGRAMS[task]), "--model", str(files.model), "--tokens", str(tokens), "--work", str(work),
            "--micro-batch", str(shape.micro_batch), *more]
    if task == "teacher":
        return [*line, "--attention", "teacher"]
    maps = ["--init-feature-maps", str(files.maps)]
    if task == "lora":
        maps = ["--feature-maps", str(files.maps), "--init-adapter", str(files.adapter)]
    return [*line, "--batch-size", str(shape.batch), "--window", str(shape.window), "--feature-dim",
            str(shape.feature_dim), "--steps", str(steps), "--checkpoint-every", "0", *maps]


def run_program(files, task, steps, threads, *more):
    """(lines of the log or the result, what it reported of itself, peak of resident bytes)."""
    work = Path(tempfile.mkdtemp(prefix="work-", dir=files.directory))
    try:
        out, errors, memory = run(program_line(files, task, steps, work, *more), threads)
        if task == "teacher":
            rates = re.findall(r"turns, (\d+) tokens/s", errors)
            return [{**json.loads(out), "tokens_per_second": float(rates[-1])}], {}, memory
        log = work / ("transfer/block_00.jsonl" if task == "transfer" else "lora/lora.jsonl")
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        report = log.parent / "run.json"
        about = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        return [line for line in lines if "loss" in line], about, memory
    finally:
        shutil.rmtree(work)


def losses(files, task, steps, threads, *more):
    """Of each step."""
    return [line["loss"] for line in run_program(files, task, steps, threads, *more)[0]]


def program_round(files, task, threads):
    """Of training, the first step, which prepares products and buffers, does not count."""
    steps = files.shape.steps[task]
    lines, about, memory = run_program(files, task, steps + (task != "teacher"), threads)
    timed = lines if task == "teacher" else lines[1:]
    result = {"tokens_per_second": len(timed) / sum(1 / line["tokens_per_second"] for line in timed), "memory": memory}
    if about:
        seconds = about["seconds"]["mean"]
        result.update(files=about["file_seconds"]["mean"] / seconds, wait=about["wait_seconds"]["mean"] / seconds)
    return result


def block_line(files, task, *more):
    shape, config = files.shape, files.config
    line = [str(BIN / "block_405b"), "--stage", task, "--model", "1b", "--layers", config["num_hidden_layers"],
            "--model-layers", config["num_hidden_layers"], "--width", config["hidden_size"], "--intermediate",
            config["intermediate_size"], "--heads", config["num_attention_heads"], "--kv-heads",
            config["num_key_value_heads"], "--head-dim",
            config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"], "--vocabulary",
            config["vocab_size"], "--length", shape.length, "--window", shape.window, "--feature-dim",
            shape.feature_dim, "--batch-size", shape.batch, "--micro-batch", shape.micro_batch, "--steps",
            shape.steps[task], *more]
    return [str(word) for word in line]


def block_round(files, task, threads):
    out, _, memory = run(block_line(files, task, "--timing-only"), threads)
    return {**json.loads(out), "memory": memory}


def measure(files, task, threads):
    """A round: tokens a second and peak memory."""
    return (block_round if files.shape.layer else program_round)(files, task, threads)


def split(files, task, threads, square):
    """The benchmark's figures for this shape's layers: seconds by kernel, and the peak measured beside them."""
    path = files.directory / f"split-{task}-{threads}.json"
    run(block_line(files, task, "--json", path, "--square", square), threads)
    return json.loads(path.read_text(encoding="utf-8"))
