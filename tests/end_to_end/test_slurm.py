#!/usr/bin/env python3
"""jobs/linearize_405b.sh under a real Slurm: a model of 126 layers converted by one sbatch, undisturbed and disturbed.

Only the site file and the data differ from a run of the large model. Whatever happens to the jobs, the converted model
has to be the one that the programs give without Slurm, byte for byte. LOLCATS_SLOW_TESTS=1 adds the tests that take a
minute or more each.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import support

sys.path.insert(0, str(support.ROOT / "tests" / "slurm"))
import cluster as slurm  # pylint: disable=wrong-import-position

BLOCKS, RANKS = 14, 14
STAGES = ("hidden", "block", "lora", "eval")
SITE = """
site_gpus_per_node=0
site_ranks_per_node=7
site_cpus_per_rank=1
site_time=00:30:00
site_warning_seconds=60
site_bin={bin}
site_python={python}
# Which arithmetic is faster differs from run to run. The default is a checkpoint every tenth step, and there are fewer.
site_program_options=(--gemm f32 --checkpoint-every 1)
"""
# The settings of stages 1 and 2, from the method's tables for 405B.
TRAINING = {"epochs": 1, "batch_size": 64, "validation": 32, "clip": 1, "schedule": "plateau", "plateau_factor": 0.1,
            "plateau_patience": 10, "min_lr": 1e-5, "eval_every": 100}
TRANSFER = TRAINING | {"lr": 1e-2, "mse_factor": 1000, "xent_factor": 1}
LOW_RANK = TRAINING | {"lr": 1e-4, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.5}
FAILURES = {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
SEQUENCES = 192  # three optimiser steps
slow = unittest.skipUnless(os.environ.get("LOLCATS_SLOW_TESTS"), "LOLCATS_SLOW_TESTS is not set")


def setUpModule():
    """Makes model and tokens, and converts it without Slurm: what every test compares with."""
    global SHARED, HOME
    if reason := slurm.reason_to_skip():
        raise unittest.SkipTest(reason)
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-slurm-data-", dir="/dev/shm")
    HOME = Path(SHARED.name)
    support.make_miniature(HOME / "model", shards=5, hidden=16, heads=1, intermediate=24, vocab=64, length=136,
                           sequences=SEQUENCES)
    tokens = support.read_hdf5(HOME / "model" / "tokens.h5")["tokens"]
    support.write_tokens(HOME / "evaluation.h5", tokens[::16])
    (HOME / "site.sh").write_text(SITE.format(bin=support.BIN, python=sys.executable))
    convert_without_slurm(HOME / "expected")


def tearDownModule():
    SHARED.cleanup()


def convert_without_slurm(work):
    work.mkdir()
    shared = {"model": HOME / "model", "block_layers": 9, "window": 64, "attention": "terrace",
              "feature_map": "hedgehog", "dtype": "bf16", "gemm": "f32"}

    def run(name, **options):
        return support.run(name, RANKS, threads=1, cwd=work, **(shared | options))

    training = {"tokens": HOME / "model" / "tokens.h5", "work": work}
    run("hidden", **training)
    run("block", **training, **TRANSFER)
    run("lora", **training, **LOW_RANK)
    scored = {"tokens": HOME / "evaluation.h5"}
    (work / "teacher.json").write_text(run("eval", **scored | {"attention": "teacher"}))
    (work / "evaluation.json").write_text(run("eval", **scored, feature_maps="transfer", adapter="lora"))


class Scripts(support.TestCase):
    """Parts of the job scripts in a shell, with stand-ins for Slurm's commands and for the programs."""

    BEGIN = """
set -euo pipefail
conversion=linearize_405b
source jobs/common.sh
load_site
work=$LOLCATS_WORK ranks=2 stage_ranks=([hidden]=2 [block]=3 [convert]=2 [lora]=2 [eval]=2) model_options=()
LOLCATS_MODEL=model LOLCATS_EVALUATION_TOKENS=/dev/null
"""

    def setUp(self):
        super().setUp()
        self.commands, self.work = self.path("commands"), self.path("work")
        (self.work / "logs").mkdir(parents=True)
        self.commands.mkdir()

    def command(self, name, script):
        path = self.commands / name
        path.write_text("#!/usr/bin/env bash\n" + script)
        path.chmod(0o755)

    def run_script(self, *line, cwd=support.ROOT, **variables):
        foreign = ("SLURM", "SBATCH", "LOLCATS", "BASH_FUNC", "MODULE", "NCCL")
        keep = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment = keep | {"PATH": f"{self.commands}:{os.environ['PATH']}"} | variables
        return subprocess.run(line, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)

    def shell(self, text, site=""):
        """Runs `text` where a job script calls linearize, after a site file of the user's own."""
        own = self.path("site.sh")
        own.write_text(f"site_bin={self.commands}\nsite_launcher=mpirun\n" + site)
        return self.run_script("bash", "-c", self.BEGIN + text, LOLCATS_SITE=str(own), LOLCATS_WORK=str(self.work))

    def printed(self, text, site=""):
        done = self.shell(text, site)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.split()

    def refused(self, text, words, site="", status=1):
        done = self.shell(text, site)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(words, done.stderr)
        return done

    def test_where_the_repository_is(self):
        found = "none.sh: cannot be read"  # so it came as far as the site file
        script = str(support.ROOT / "jobs" / "linearize_405b.sh")
        for cwd, variables, words in ((support.ROOT, {"SLURM_SUBMIT_DIR": "/nowhere"}, found),
                                      (self.directory, {"SLURM_SUBMIT_DIR": str(support.ROOT)}, found),
                                      (self.directory, {"LOLCATS_ROOT": str(support.ROOT)}, found),
                                      (support.ROOT, {"LOLCATS_ROOT": "/nowhere"}, "/nowhere/jobs/common.sh")):
            done = self.run_script("bash", script, cwd=cwd, LOLCATS_SITE="none.sh", **variables)
            self.assertIn(words, done.stderr)

    def test_what_the_site_file_leaves_out(self):
        self.assertEqual(self.printed('echo "$site_models" "$site_data" "${stages[@]}"', "site_scratch=/s\n"),
                         ["/s/models", "/s/data", "hidden", "block", "lora", "eval"])
        self.assertEqual(self.printed('echo "$site_models" "$site_data" "${stages[@]}"',
                                      "site_scratch=/s\nsite_models=/m\nsite_data=/d\nsite_streaming=1\n"),
                         ["/m", "/d", "convert", "lora", "eval"])
        self.refused("", "site_streaming is 'yes'", "site_streaming=yes\n")

    def test_time_limits(self):
        for time_, seconds in (("90", 5400), ("10:30", 630), ("08:09:00", 29340), ("1-0", 86400), ("1-02:03", 93780),
                               ("1-02:03:04", 93784), ("UNLIMITED", 0), ("infinite", 0), ("0", 0), ("", 0)):
            self.assertEqual(self.printed("time_limit", f"site_time={time_}\n"), [str(seconds)], time_)
        for time_ in ("1h", "1:2:3:4", "-5", "1-", "1-2:3:4:5"):
            self.refused("check_time", f"site_time is '{time_}'", f"site_time={time_}\n")
        self.refused("check_time", "three times", "site_time=29:59\nsite_warning_seconds=600\n")
        self.printed("check_time", "site_time=30\nsite_warning_seconds=600\n")

    def test_modules(self):
        site = f"site_modules=(of_no_system)\nMODULESHOME={self.directory}\n"
        self.refused("load_modules", "site_modules", site)
        (self.directory / "init").mkdir()
        (self.directory / "init" / "bash").write_text('module() { echo "$unset_variable" "$@"; }\nfalse\n')
        self.assertEqual(self.printed("load_modules", site), ["load", "of_no_system"])

    def test_what_a_job_asks_for(self):
        self.command("sbatch", 'printf "%s " "$@" >>"$LOLCATS_WORK/asked"; echo 7\n')
        site = "site_sbatch_options=(--export=NONE)\nsite_ranks_per_node=2\n"
        self.assertEqual(self.printed("submit_stage block 6", site + "site_gpus_per_node=1\n"), ["7"])
        asked = (self.work / "asked").read_text().split()
        for option in ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=1", "--dependency=afterok:6",
                       "--time=24:00:00"):
            self.assertIn(option, asked)
        self.assertEqual([word for word in asked if "--export" in word], ["--export=NONE", "--export=ALL"])
        (self.work / "asked").unlink()
        self.printed("submit_stage hidden ''", "site_time=\nsite_ranks_per_node=4\nsite_gpus_per_node=1\n")
        asked = (self.work / "asked").read_text()
        self.assertIn("--gpus-per-node=1 ", asked)
        self.assertNotIn("--time", asked)

    def queue(self, *answers):
        """What squeue says, one time after the other; the last of it from then on."""
        for i, jobs in enumerate(answers):
            lines = [f"linearize_405b.{stage}|{rest}|{self.work}\n" for stage, rest in jobs.items()]
            (self.directory / f"queue{i}").write_text("".join(lines) + "linearize_405b.eval|9|PENDING|None|(null)|/x\n")
        self.command("squeue", f'cd {self.directory}; cat "$(ls queue* | head -n 1)"; '
                               '[ "$(ls queue* | wc -l)" = 1 ] || rm "$(ls queue* | head -n 1)"\n')
        self.command("scancel", 'echo cancelled "$@"\n')
        self.command("sleep", "")
        self.command("sbatch", 'for word; do :; done; echo $((20 + ${#word})); echo "new $word" >&2\n')

    def submitted(self, site=""):
        done = self.shell("submit_chain", site)
        self.assertEqual(done.returncode, 0, done.stderr)
        return re.findall("new ([a-z]+)", done.stderr), done.stdout.split()

    def test_a_queue_without_this_conversion(self):
        self.queue({})
        self.assertEqual(self.submitted(), (["hidden", "block", "lora", "eval"], []))
        self.assertEqual(self.submitted("site_streaming=1\n"), (["convert", "lora", "eval"], []))

    def test_a_queue_with_a_part_of_it(self):
        self.queue({"hidden": "1|RUNNING|None|(null)", "block": "2|PENDING|Dependency|afterok:1(unfulfilled)"})
        self.assertEqual(self.submitted(), (["lora", "eval"], []))
        self.refused("submit_chain", "hidden is queued, as job 1", "site_streaming=1\n")

    def test_a_job_before_has_failed(self):
        waiting = {"block": "2|PENDING|Dependency|afterok:1(unfulfilled)",
                   "lora": "3|PENDING|Dependency|afterok:2(unfulfilled)"}
        self.queue({"hidden": "1|COMPLETING|NonZeroExitCode|(null)"} | waiting, waiting,
                   waiting | {"block": "2|PENDING|DependencyNeverSatisfied|afterok:1(failed)"}, {})
        self.assertEqual(self.submitted(), (["hidden", "block", "lora", "eval"], ["cancelled", "2", "3"]))

    def test_a_job_before_has_succeeded(self):
        """For a moment it looks as if it had failed."""
        later = {"lora": "3|PENDING|Dependency|afterok:2(unfulfilled)"}
        self.queue({"block": "2|PENDING|Dependency|afterok:1(unfulfilled)"} | later,
                   {"block": "2|PENDING|Priority|(null)"} | later)
        self.assertEqual(self.submitted(), (["eval"], []))

    def test_a_job_whose_fate_stays_open(self):
        self.queue({"block": "2|PENDING|Dependency|afterok:1(unfulfilled)"})
        self.assertNotIn("new", self.refused("submit_chain", "job 2 neither ends nor begins").stderr)

    def test_warning_without_a_launcher(self):
        self.command("mpirun", "echo launched\n")
        self.command("scontrol", 'echo "$@ Restarts=0 JobState=RUNNING "\n')
        done = self.refused("SLURM_JOB_ID=4\nkill -USR1 $$\nrun_program lora",
                            "told to stop before lolcats_lora began; requeued", status=85)
        self.assertTrue(done.stdout.startswith("requeue 4 "), done.stdout)

    def test_warning_while_ranks_run(self):
        self.command("mpirun", "trap 'exit 85' USR1; kill -USR1 $PPID; while :; do sleep 0.1; done\n")
        self.refused("run_program lora", "the ranks are told as well", status=85)

    def test_scores_alone_are_stored(self):
        self.command("mpirun", 'shift 2; exec "$@"\n')
        self.command("lolcats_eval", 'while [ "$1" != --done-file ]; do shift; done\ntouch "$2"\n'
                                     'echo "NCCL version $(basename "$NCCL_DEBUG_FILE")"; echo "{1}"; echo more\n')
        done = self.shell("evaluate teacher")
        self.assertEqual((self.work / "teacher.json").read_text(), "{1}\n", done.stderr)
        self.assertIn("NCCL version stderr\nmore\n", done.stderr)
        self.assertEqual([path.name for path in self.work.glob("*.tmp*")], [])


class Conversion(support.TestCase):
    """A cluster for each test, and what it takes to submit to it, disturb it and wait."""

    NODES = 2

    def setUp(self):
        super().setUp()
        self.work = self.path("work")
        self.cluster = slurm.Cluster(self.NODES).__enter__()
        self.addCleanup(self.cluster.down)

    def submit(self, script="linearize_405b", **variables):
        """sbatch jobs/SCRIPT.sh; returns the id of the job that submits the stages."""
        variables = {"LOLCATS_SITE": str(HOME / "site.sh"), "LOLCATS_MODEL": str(HOME / "model"),
                     "LOLCATS_TOKENS": str(HOME / "model" / "tokens.h5"), "LOLCATS_WORK": str(self.work),
                     "LOLCATS_EVALUATION_TOKENS": str(HOME / "evaluation.h5")} | variables
        return self.cluster.command("sbatch", "--parsable", f"--output={self.directory}/%x-%j.log",
                                    f"jobs/{script}.sh", cwd=support.ROOT, **variables).strip()

    def jobs(self):
        """(id, name, state, reason) of all jobs, the oldest first."""
        text = self.cluster.command("squeue", "--noheader", "--states=all", "--sort=i", "--format=%A %j %T %r",
                                    check=False)
        return [tuple(line.split(maxsplit=3)) for line in text.splitlines()]

    def job(self, stage, script="linearize_405b"):
        """Id of the newest job of a stage, once there is one."""
        def newest():
            found = [job[0] for job in self.jobs() if job[1] == f"{script}.{stage}"][-1:]
            if not found:
                self.fail_if_any(FAILURES)
            return found

        return slurm.wait_for(newest, 60, f"a job for {stage}")[0]

    def states(self):
        return {job[0]: job[2] for job in self.jobs()}

    def fail_if_any(self, states):
        for number, name, state, _ in self.jobs():
            if state in states:
                self.fail(f"job {number}, {name}, is {state}\n{self.logs()[-4000:]}")

    def hurry(self):
        """A requeued job may only begin two minutes later; here it may as soon as its first start is cleared away."""
        for number, _, state, reason in self.jobs():
            if state == "PENDING" and reason == "BeginTime" and self.cluster.is_cleared(number):
                self.cluster.command("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)

    def wait(self, jobs, states, seconds=300):
        """Until these jobs are all in one of the states; a job that failed ends the test with its log."""
        def reached():
            self.hurry()
            self.fail_if_any(FAILURES - set(states))
            now = self.states()
            return all(now.get(number) in states for number in jobs)

        slurm.wait_for(reached, seconds, f"jobs {jobs} to be {states}; they are {self.jobs()}\n{self.logs()[-2000:]}")

    def wait_for_chain(self, seconds=300, script="linearize_405b", stages=STAGES):
        """Until all stages are done; returns the ids of their jobs."""
        numbers = [self.job(stage, script) for stage in stages]
        self.wait(numbers, {"COMPLETED"}, seconds)
        return numbers

    def entry_log(self, number):
        """What the job that submits the stages wrote."""
        return (self.directory / f"linearize_405b-{number}.log").read_text()

    def logs(self):
        paths = sorted([*self.directory.glob("*.log"), *(self.work / "logs").glob("*.log")])
        paths.append(self.cluster.home / "slurmctld.log")
        return "".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)

    def log(self, stage):
        return self.work / "logs" / f"linearize_405b.{stage}-{self.job(stage)}.log"

    def wait_until_halfway(self, stage):
        """Until the stage's job has done part of its work, and not all."""
        trains = (lambda: self.work / "transfer" / "block_00.jsonl", "grad_norm")
        signs = {"hidden": (lambda: self.log("hidden"), "hidden states of 64 of"), "block": trains, "convert": trains,
                 "lora": (lambda: self.work / "lora" / "lora.jsonl", "grad_norm")}
        path, sign = signs[stage]

        def is_halfway():
            if path().exists() and sign in path().read_text():
                return True
            self.hurry()
            self.fail_if_any(FAILURES)
            return False

        slurm.wait_for(is_halfway, 400, f"{stage} to be halfway")
        self.assertEqual(self.states()[self.job(stage)], "RUNNING", f"{stage} was over too soon to be disturbed")

    def restarts(self, stage):
        text = self.cluster.command("scontrol", "show", "job", self.job(stage))
        return int(re.search(r"Restarts=(\d+)", text).group(1))

    def first_node(self, stage):
        """The one that runs the job script as well."""
        return re.search(r"BatchHost=(\S+)", self.cluster.command("scontrol", "show", "job", self.job(stage))).group(1)

    def assert_converted(self, stored=True):
        """The model and its scores are those of the run without Slurm."""
        names = [f"transfer/block_{block:02}.safetensors" for block in range(BLOCKS)]
        names += ["lora/adapter_config.json", "lora/adapter_model.safetensors", "teacher.json", "evaluation.json"]
        self.assertEqual(sorted(path.name for path in (self.work / "transfer").glob("*.safetensors")),
                         [Path(name).name for name in names[:BLOCKS]])
        for name in names:
            self.assertEqual((self.work / name).read_bytes(), (HOME / "expected" / name).read_bytes(), name)
        self.assertEqual((self.work / "hidden").exists(), stored)
        for block in range(1, BLOCKS if stored else 1):
            self.assert_same_numbers(support.read_hidden(self.work, block),
                                     support.read_hidden(HOME / "expected", block), f"hidden states of {block}")
        scores = json.loads((self.work / "evaluation.json").read_text())
        self.assertGreater(scores["perplexity"], 1)


class Whole(Conversion):
    def test_one_sbatch_converts_the_model(self):
        """Submitted twice, and started again in the midst of stage 1."""
        first = self.submit()
        again = self.submit()  # at the same moment: it finds the chain, and leaves it alone
        self.wait_until_halfway("block")
        self.cluster.command("scontrol", "requeue", self.job("block"))
        numbers = self.wait_for_chain()
        self.assert_converted()
        self.wait([first, again], {"COMPLETED"})
        self.assertEqual([job[1] for job in self.jobs()].count("linearize_405b.block"), 1, self.logs())
        self.assertEqual([self.restarts(stage) for stage in STAGES], [0, 1, 0, 0])
        self.assertEqual(numbers, sorted(numbers, key=int))
        self.assertIn("decoder weights, a block", self.entry_log(first))

    @slow
    def test_undisturbed(self):
        self.submit()
        self.wait_for_chain()
        self.assertEqual([self.restarts(stage) for stage in STAGES], [0] * 4)
        self.assert_converted()


@slow
class Requeued(Conversion):
    def test_scontrol_requeue_in_every_stage(self):
        self.submit()
        for stage in ("hidden", "block", "lora"):
            self.wait_until_halfway(stage)
            self.cluster.command("scontrol", "requeue", self.job(stage))
        self.wait_for_chain()
        self.assertEqual([self.restarts(stage) for stage in STAGES], [1, 1, 1, 0])
        self.assert_converted()

    def test_warning_before_the_time_limit(self):
        """What --signal=B:USR1 sends: the programs stop in their own time, and the job requeues itself."""
        self.submit()
        for stage in ("hidden", "block", "lora"):
            self.wait_until_halfway(stage)
            self.cluster.command("scancel", "--batch", "--signal=USR1", self.job(stage))
        self.wait_for_chain()
        self.assertEqual([self.restarts(stage) for stage in STAGES], [1, 1, 1, 0])
        self.assertIn("stopped before the end", self.log("block").read_text())
        self.assert_converted()


class Refused(Conversion):
    def test_nothing_is_submitted_that_cannot_run(self):
        small, wrong = self.path("small.sh"), self.path("wrong.sh")
        small.write_text((HOME / "site.sh").read_text() + "site_plan_options=(--plan-memory 1e5)\n")
        wrong.write_text((HOME / "site.sh").read_text() + "site_bin=/nowhere\n")
        empty, short = self.path("empty.sh"), self.path("short.sh")
        empty.write_text((HOME / "site.sh").read_text() + f"site_scratch={self.directory}/scratch\n")
        short.write_text((HOME / "site.sh").read_text() + "site_time=00:02:00\n")
        self.work.mkdir()
        (self.work / "lolcats.toml").write_text('windwo = 3\n')
        for site, words, variables in (
                (wrong, "/nowhere", {}), (self.path("none.sh"), "none.sh", {}), (short, "site_warning_seconds", {}),
                (empty, f"{self.directory}/scratch/models/Llama-3.1-405B/config.json", {"LOLCATS_MODEL": ""}),
                (empty, f"{self.directory}/scratch/data/redpajama_validation_1024.h5",
                 {"LOLCATS_EVALUATION_TOKENS": ""}),
                (HOME / "site.sh", "lolcats.toml", {}),  # where the stages would read it
                (small, "a rank needs", {"LOLCATS_WORK": str(self.path("other"))}),
                (small, "a rank needs", {"LOLCATS_WORK": str(self.path("other")), "LOLCATS_STREAMING": "1"})):
            number = self.submit(LOLCATS_SITE=str(site), **variables)
            self.wait([number], {"FAILED"})
            self.assertIn(words, self.entry_log(number).split("error:")[1])
        self.assertEqual({job[1] for job in self.jobs()}, {"linearize_405b"})


class Leftover(Conversion):
    def test_submitted_again_at_once_after_a_failure(self):
        """While the jobs after the one that failed are still queued: for a moment, or for good if Slurm keeps them."""
        over = {"COMPLETED", "FAILED", "CANCELLED"}
        for kill in ("yes", "no"):
            site, work = self.path(f"{kill}.sh"), self.path(kill)
            site.write_text((HOME / "site.sh").read_text() + "site_launcher=none\n"
                            f"site_sbatch_options=(--kill-on-invalid-dep={kill})\n")
            variables = {"LOLCATS_SITE": str(site), "LOLCATS_WORK": str(work)}
            self.wait([self.submit(**variables)], over)
            failed = [self.job(stage) for stage in STAGES]
            self.wait(failed[:1], over)
            again = self.submit(**variables)
            self.wait([again], over)
            self.assertEqual(self.states()[again], "COMPLETED", self.entry_log(again))
            self.assertFalse({self.job(stage) for stage in STAGES} & set(failed), self.entry_log(again))
            self.assertEqual([self.states()[number] for number in failed], ["FAILED"] + ["CANCELLED"] * 3)


@slow
class Launched(Conversion):
    LAUNCHES = 100
    SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
conversion=launches ranks={ranks}
source "$LOLCATS_ROOT/jobs/common.sh"
load_site
for ((i = 0; i < {launches}; i++)); do launch {program}; done
"""

    def test_ranks_of_two_nodes_meet(self):
        """Where MPI_Init does not wait for the other node's ranks, one launch in twenty crashes."""
        program, script = self.path("sum_of_ranks"), self.path("launches.sh")
        subprocess.run(["mpicxx", "-o", program, support.ROOT / "tests" / "slurm" / "sum_of_ranks.cpp"], check=True)
        script.write_text(self.SCRIPT.format(ranks=RANKS, launches=self.LAUNCHES, program=program))
        number = self.cluster.command("sbatch", "--parsable", f"--output={self.directory}/%x-%j.log", "--nodes=2",
                                      f"--ntasks={RANKS}", str(script), LOLCATS_ROOT=str(support.ROOT),
                                      LOLCATS_SITE=str(HOME / "site.sh")).strip()
        self.wait([number], {"COMPLETED"}, 900)


@slow
class Broken(Conversion):
    def test_nodes_that_die(self):
        """First one that only computes, then the one that runs the job script as well."""
        self.submit()
        for stage, node in (("block", "n2"), ("lora", "n1")):
            self.wait_until_halfway(stage)
            number = self.job(stage)
            self.cluster.kill_node(node)
            slurm.wait_for(lambda number=number: self.states()[number] == "PENDING", 120, "the node to be missed")
            self.cluster.start_node(node)
        self.wait_for_chain(500)
        self.assertEqual([self.restarts(stage) for stage in STAGES], [0, 1, 1, 0])
        self.assert_converted()

    def test_controller_that_dies(self):
        self.submit()
        for stage in ("block", "lora"):
            self.wait_until_halfway(stage)
            self.cluster.kill_controller()
            time.sleep(2)
            self.cluster.start_controller()
        self.wait_for_chain(500)
        self.assertEqual([self.restarts(stage) for stage in STAGES], [0] * 4)
        self.assert_converted()


@slow
class ThoughtDead(Conversion):
    NODES = 3

    def test_a_node_that_stood_still(self):
        """The job is started again on the other nodes; the ranks that wake up may not spoil what it writes."""
        self.submit()
        self.wait_until_halfway("block")
        number = self.job("block")
        node = self.first_node("block")
        self.cluster.freeze(node)
        slurm.wait_for(lambda: self.states()[number] == "PENDING", 120, "the node to be missed")
        self.wait([number], {"RUNNING"})
        time.sleep(3)
        self.assertEqual(self.cluster.thaw(node).count("lolcats_block"), 7)
        self.wait_for_chain(500)
        self.assertEqual(self.restarts("block"), 1)
        self.assert_converted()

    def test_a_node_whose_daemon_died(self):
        """Its ranks go on: they end the stage, or Slurm misses the node before and starts the job again beside them."""
        self.submit()
        self.wait_until_halfway("block")
        self.assertEqual(self.cluster.kill_daemon(self.first_node("block")).count("lolcats_block"), 7)
        self.wait_for_chain(500)
        self.assertLessEqual(self.restarts("block"), 1)
        self.assert_converted()


@slow
class SubmittedAgain(Conversion):
    def test_after_it_was_cancelled(self):
        self.submit()
        self.wait_until_halfway("block")
        cancelled = [self.job(stage) for stage in STAGES[1:]]
        self.cluster.command("scancel", cancelled[0])
        self.wait(cancelled, {"CANCELLED"})
        self.assertEqual(self.restarts("block"), 0)
        self.submit_again(cancelled)
        self.assert_converted()

    def test_after_it_was_done(self):
        self.submit()
        done = self.wait_for_chain()
        before = self.modification_times()
        self.submit_again(done)
        self.assert_converted()
        self.assertEqual(self.modification_times(), before, "what was done is done again")

    def submit_again(self, earlier):
        self.wait([self.submit()], {"COMPLETED", "CANCELLED"})
        numbers = [self.job(stage) for stage in STAGES]
        self.assertFalse(set(numbers) & set(earlier))
        self.wait(numbers, {"COMPLETED", "CANCELLED"})
        self.assertEqual({self.states()[number] for number in numbers}, {"COMPLETED"}, self.logs())

    def modification_times(self):
        paths = [path for kind in ("transfer/*.safetensors", "lora/*.safetensors", "*.json")
                 for path in self.work.glob(kind)]
        return {path.name: path.stat().st_mtime_ns for path in paths}


@slow
class Variants(Conversion):
    def test_mpirun(self):
        site = self.path("site.sh")
        site.write_text((HOME / "site.sh").read_text() + "site_launcher=mpirun\n")
        self.submit(LOLCATS_SITE=str(site))
        self.wait_for_chain()
        self.assert_converted()

    def test_without_stored_hidden_states(self):
        """Warned before the time limit as well."""
        self.submit(LOLCATS_STREAMING="1")
        self.wait_until_halfway("convert")
        self.cluster.command("scancel", "--batch", "--signal=USR1", self.job("convert"))
        self.wait_for_chain(stages=("convert", "lora", "eval"))
        self.assertEqual(self.restarts("convert"), 1)
        self.assert_converted(stored=False)

    def test_the_other_models(self):
        """Their job scripts, on miniatures of as many layers."""
        for name, layers in (("linearize_8b", 32), ("linearize_70b", 80)):
            model = support.make_miniature(self.path(name), layers=layers, hidden=16, heads=1, intermediate=24,
                                           vocab=64, sequences=48, length=136)
            work = self.path(name + "_work")
            self.submit(name, LOLCATS_MODEL=str(model), LOLCATS_TOKENS=str(model / "tokens.h5"),
                        LOLCATS_WORK=str(work))
            self.wait_for_chain(script=name)
            maps = support.read_feature_maps(work)
            self.assertEqual(sum("window_factors" in key for key in maps), layers)
            scores = json.loads((work / "evaluation.json").read_text())
            self.assertGreater(scores["perplexity"], 1)

    def test_the_tiny_teacher(self):
        """Which brings its own model and corpus."""
        variables = {"LOLCATS_SITE": str(HOME / "site.sh"), "SCRATCH": str(self.directory)}
        self.cluster.command("sbatch", f"--output={self.directory}/%x-%j.log", "jobs/linearize_tiny.sh",
                             cwd=support.ROOT, **variables)
        self.work = self.path("linearize_tiny")
        self.wait_for_chain(900, "linearize_tiny")
        losses = [json.loads((self.work / f"{name}.json").read_text())["loss"] for name in ("teacher", "evaluation")]
        self.assertLess(losses[1], losses[0] + 0.05)


if __name__ == "__main__":
    unittest.main()
