"""Runs the stages of rows for each seed and evaluates what comes out. What is there already is kept."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import quality_rows as rows
from tool_error import ToolError
from whole_output import read_json, whole_file, write_json

MAKE_CORPUS = ("tiny", "make_corpus.py")
CORPORA = {
    "train": {"sequences": 1600, "length": 256, "seed": 1},
    "halves": {"sequences": 3200, "length": 128, "seed": 1},
    "all": {"sequences": 200, "length": 256, "seed": 2},
    "far": {"sequences": 200, "length": 256, "seed": 2, "labels": "answers"},
    "near": {"sequences": 200, "length": 64, "seed": 3, "labels": "answers", "min-distance": 0},
}


def arguments_of(options):
    line = []
    for name, value in options.items():
        if value is True:
            line.append(f"--{name}")
        elif value is not None:
            line += [f"--{name}", str(value)]
    return line


class Runs:
    """`share` of a row's training steps is done, on `corpus_share` of the sequences: 1 is all of them."""

    def __init__(self, out, model, programs, tools, launcher, jobs, share, corpus_share):
        self.out, self.model, self.programs, self.tools = out, model, programs, tools
        self.launcher, self.jobs, self.share, self.corpus_share = launcher, jobs, share, corpus_share
        self.locks = defaultdict(threading.Lock)  # by file: rows of several tables may be the same model

    # --- Inputs -------------------------------------------------------------------------------------------------

    def claim(self):
        """The directory is of one share of steps and sequences."""
        path, mine = self.out / "shares.json", {"steps": self.share, "sequences": self.corpus_share}
        if path.exists():
            found = read_json(path, "remove it with its directory")
            if found != mine:
                raise ToolError(f"{path}: what is here was computed with {found}, not {mine}; give another --out")
        else:
            write_json(path, mine)

    def make_corpora(self):
        for name, options in CORPORA.items():
            path = self.out / f"{name}.h5"
            if not path.exists():
                sized = {**options, "sequences": round(options["sequences"] * self.corpus_share)}
                with whole_file(path) as aside:
                    subprocess.run([sys.executable, str(self.tools.joinpath(*MAKE_CORPUS)), *arguments_of(sized),
                                    "--out", str(aside)], check=True)

    # --- Options ------------------------------------------------------------------------------------------------

    def options(self, row, seed, stage):
        """Of the stage that trains, or of none."""
        own = {"transfer": {**rows.TRANSFER, **(row.transfer or {})}, "adjust": {**rows.ADJUST, **(row.adjust or {})},
               None: {}}[stage]
        options = {"model": self.model, **rows.COMMON, "seed": seed, **own, **row.form}
        if "steps" in options:
            options["steps"] = max(1, round(options["steps"] * row.share * self.share))
        return options

    def transfer_of(self, row, seed):
        """Runs of stage 1, one after the other: (directory, options)."""
        return self.in_parts(row, seed, "transfer", self.options(row, seed, "transfer"),
                             lambda before: {"init-feature-maps": str(before / "transfer")})

    def adjust_of(self, row, seed):
        options = self.options(row, seed, "adjust")
        if row.transfer is None:
            options["train-feature-maps"] = True
        else:
            options["feature-maps"] = str(self.transfer_of(row, seed)[-1][0] / "transfer")
        return self.in_parts(row, seed, "adjust", options, lambda before: {"init-adapter": str(before / "lora")})

    def in_parts(self, row, seed, stage, options, go_on_from):
        """One run, or with `late` two: as many tokens in a batch of halves as in one of whole sequences."""
        if row.late is None:
            return [self.named(seed, stage, options)]
        last = max(1, round(row.late * options["steps"]))
        first = self.named(seed, stage, {**options, "steps": max(1, options["steps"] - last),
                                         **{name: 2 * options[name] for name in ("batch-size", "micro-batch")},
                                         "tokens": str(self.out / "halves.h5")})
        return [first, self.named(seed, stage, {**options, "steps": last, **go_on_from(first[0])})]

    def named(self, seed, stage, options):
        return self.out / f"seed_{seed}" / f"{stage}_{digest(options)}", options

    # --- Programs -----------------------------------------------------------------------------------------------

    def program(self, name, options):
        line = [*self.launcher, str(self.programs / f"lolcats_{name}"), *arguments_of(options)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=self.out,
                              env={"OMP_NUM_THREADS": "1", **os.environ})
        if done.returncode != 0:
            raise ToolError(f"{' '.join(line)}: status {done.returncode}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def train(self, name, parts):
        for work, options in parts:
            self.train_part(name, work, options)

    def train_part(self, name, work, options):
        marker = work / "finished.json"
        if marker.exists():
            return
        work.mkdir(parents=True, exist_ok=True)
        self.program(name, {"tokens": self.out / "train.h5", **options, "work": work})
        marker.write_text(json.dumps(options, default=str) + "\n", encoding="utf-8")
        print(f"{work.relative_to(self.out)}", file=sys.stderr, flush=True)

    def evaluation_options(self, row, seed):
        options = {key: value for key, value in self.options(row, seed, None).items()
                   if key not in ("batch-size", "validation", "shuffle")}
        if row.transfer is not None:
            options["feature-maps"] = str(self.transfer_of(row, seed)[-1][0] / "transfer")
        if row.adjust is not None:
            work, adjusted = self.adjust_of(row, seed)[-1]
            options["adapter"] = str(work / "lora")
            if (work / "lora" / "feature_maps.safetensors").exists() or adjusted.get("train-feature-maps"):
                options["feature-maps"] = str(work / "lora" / "feature_maps.safetensors")
        return options

    def evaluate(self, row, seed, corpus, **extra):
        options = {**self.evaluation_options(row, seed), "tokens": str(self.out / f"{corpus}.h5"), **extra}
        path = self.out / f"seed_{seed}" / f"evaluation_{digest(options)}.json"
        with self.locks[path]:
            if not path.exists():
                text = self.program("eval", options)
                with whole_file(path) as aside:
                    aside.write_text(text, encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    def measure(self, row, seed):
        """{measurement: value} of one row and seed."""
        result = {"perplexity": self.evaluate(row, seed, "all")["perplexity"],
                  "recall": self.evaluate(row, seed, "far")["exact_match"]}
        if row.diagnosed:
            result["branches"] = {branch: self.diagnose(row, seed, branch) for branch in rows.BRANCHES}
            result["mass"] = self.evaluate(row, seed, "all", **{"attention-mass": True})["attention_mass"]
        return result

    def diagnose(self, row, seed, branch):
        far, near = (self.evaluate(row, seed, corpus, branch=branch) for corpus in ("far", "near"))
        return {"perplexity": self.evaluate(row, seed, "all", branch=branch)["perplexity"],
                "recall": far["exact_match"], "by_distance": near["by_distance"] + far["by_distance"]}

    # --- All of them --------------------------------------------------------------------------------------------

    def each(self, work, items):
        """work(item) for all, `jobs` at once; the first error ends it."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(work, items))

    def train_all(self, name, chains):
        """Runs that several rows share are done once."""
        once = {str(parts[-1][0]): parts for parts in chains}
        self.each(lambda parts: self.train(name, parts), once.values())

    def run(self, wanted, seeds):
        """{row key: {seed: measurements}}"""
        self.claim()
        self.make_corpora()
        pairs = [(row, seed) for seed in seeds for row in wanted]
        self.train_all("convert", [self.transfer_of(*pair) for pair in pairs if pair[0].transfer is not None])
        self.train_all("lora", [self.adjust_of(*pair) for pair in pairs if pair[0].adjust is not None])
        results = {}
        for (row, seed), result in zip(pairs, self.each(lambda pair: self.measure(*pair), pairs)):
            results.setdefault(row.key, {})[seed] = result
        return results


def digest(options):
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]
