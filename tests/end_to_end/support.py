"""What the end-to-end tests share: running the programs, reading what they write, comparing arrays.

LOLCATS_BIN names the directory of the programs. Nothing is written outside of temporary directories.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("LOLCATS_BIN", ROOT / "build" / "bin"))
GOLDEN = ROOT / "tests" / "data" / "golden"
TINY = ROOT / "tests" / "data" / "tiny" / "model"
MPIRUN = os.environ.get("LOLCATS_MPIRUN", "mpirun")

# So that a test file also runs by hand, as root and with more ranks than cores.
for _name, _value in {
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_btl": "self,vader", "OMPI_MCA_pml": "ob1",
        "OMP_PROC_BIND": "false"}.items():
    os.environ.setdefault(_name, _value)


# --- Running programs ---------------------------------------------------------------------------------------------

def command_line(name, options, ranks):
    """`options` holds command-line settings by name with _ for -; True is a flag that is given."""
    launcher = [MPIRUN, "-n", str(ranks)] if ranks > 0 else []
    line = [*launcher, str(BIN / f"lolcats_{name}")]
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        if value is not False and value is not None:
            line += [option] if value is True else [option, str(value)]
    return line


def has_bf16_products():
    """Whether oneDNN multiplies in bf16 here: it needs AVX-512."""
    return "avx512bw" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def attempt(name, ranks=0, threads=None, cwd=None, timeout=300, **options):
    """Runs lolcats_NAME and returns the completed process, whatever became of it. ranks = 0: without mpirun."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return subprocess.run(command_line(name, options, ranks), capture_output=True, text=True, env=environment, cwd=cwd,
                          timeout=timeout, check=False)


def run(name, ranks=0, threads=None, cwd=None, timeout=300, **options):
    """Runs lolcats_NAME, which must succeed, and returns what it printed on standard output."""
    done = attempt(name, ranks, threads, cwd, timeout, **options)
    if done.returncode != 0:
        line = " ".join(command_line(name, options, ranks))
        raise AssertionError(f"status {done.returncode}: {line}\n{done.stderr[-2000:]}")
    return done.stdout


def feature_maps():
    """The names that --feature-map takes."""
    return re.search(r"--feature-map \{([a-z0-9_,]+)\}", run("plan", help=True)).group(1).split(",")


def evaluate(**options):
    """The JSON object that lolcats_eval prints."""
    return json.loads(run("eval", **options))


def peak_memory(name, cwd=None, threads=1, **options):
    """Peak resident bytes of one process of lolcats_NAME, which must succeed."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
            command_line(name, options, 0), stdout=subprocess.DEVNULL, stderr=errors, env=environment,
            cwd=cwd) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise AssertionError(f"{name}: status {process.returncode}\n{errors.read().decode()[-2000:]}")
    return usage.ru_maxrss * 1024


def make_miniature(directory, **options):
    """A random checkpoint with tokens.h5 beside it, by the project's own tool."""
    line = [sys.executable, str(ROOT / "tools" / "tiny" / "make_miniature.py"), "--out", str(directory)]
    for key, value in options.items():
        line += ["--" + key.replace("_", "-"), str(value)]
    subprocess.run(line, check=True)
    return Path(directory)


def make_corpus(path, **options):
    """Tokens and labels for the tiny teacher, by the project's own tool."""
    line = [sys.executable, str(ROOT / "tools" / "tiny" / "make_corpus.py"), "--out", str(path)]
    for key, value in options.items():
        line += ["--" + key, str(value)]
    subprocess.run(line, check=True)
    return Path(path)


# --- Processes ----------------------------------------------------------------------------------------------------

def descendants(pid):
    """Process ids of all that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text(encoding="ascii").split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in map(int, children):
            found += [child, *descendants(child)]
    return found


def send(signal_number, *pids):
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            pass


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- Reading and writing files ------------------------------------------------------------------------------------

def write_tokens(path, tokens, labels=None):
    with h5py.File(path, "w") as out:
        out["tokens"] = np.asarray(tokens, dtype=np.int32)
        if labels is not None:
            out["labels"] = np.asarray(labels, dtype=np.int32)
    return Path(path)


def read_hdf5(path):
    """All datasets of a file as {name: array}."""
    arrays = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return arrays


def read_hidden(work, block):
    with h5py.File(Path(work) / "hidden" / f"block_{block:02}.h5", "r") as file:
        return file["hidden_states"][()]


def safetensors_header(path):
    with open(path, "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


def decode(data, dtype):
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)


def read_safetensors(path):
    """{name: float32 array} of all tensors."""
    content = Path(path).read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    arrays = {}
    for name, info in safetensors_header(path).items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            arrays[name] = decode(content[start + begin:start + end], info["dtype"]).reshape(info["shape"])
    return arrays


def write_safetensors(path, arrays, metadata=None):
    """Writes {name: array} as F32; what read_safetensors gives can be changed and written back."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, array in arrays.items():
        values = np.ascontiguousarray(array, "<f4")
        offsets = [len(data), len(data) + values.nbytes]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        data += values.tobytes()
    write_safetensors_parts(path, json.dumps(header), data)


def write_safetensors_parts(path, header, data):
    """A file of this header text, right or wrong, and these bytes."""
    text = header.encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_feature_maps(work):
    """All tensors in WORK/transfer."""
    arrays = {}
    for path in sorted((Path(work) / "transfer").glob("*.safetensors")):
        arrays.update(read_safetensors(path))
    return arrays


def refuse_constant(text):
    raise ValueError(f"{text} is not JSON")


def read_log(path):
    """The lines of a JSON-lines file; NaN and Infinity, which are not JSON, are refused."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse_constant) for line in lines]


def train_lines(path):
    return [line for line in read_log(path) if "grad_norm" in line]


def evaluation_lines(path):
    return [line for line in read_log(path) if "eval_loss" in line]


# --- Comparing ----------------------------------------------------------------------------------------------------

def relative_rms(actual, expected):
    """Root mean square of the difference over that of what is expected; infinite unless all values are finite."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return np.inf
    difference, size = np.sqrt(((actual - expected)**2).sum()), np.sqrt((expected**2).sum())
    if size == 0:
        return 0.0 if difference == 0 else np.inf
    return difference / size


class TestCase(unittest.TestCase):
    """A test with a directory of its own, `self.directory`."""

    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="lolcats-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, name):
        return self.directory / name

    def assert_close(self, actual, expected, tolerance, what=""):
        """Relative RMS; a NaN, an infinity or another shape on either side fails."""
        error = relative_rms(actual, expected)
        self.assertTrue(error <= tolerance,
                        f"{what}: relative RMS error {error:.3g} > {tolerance:.3g}, shapes {np.shape(actual)} and "
                        f"{np.shape(expected)}")

    def assert_all_close(self, actual, expected, tolerance, what=""):
        """Both are {name: array} with the same names."""
        self.assertEqual(sorted(actual), sorted(expected), what)
        for name, array in expected.items():
            self.assert_close(actual[name], array, tolerance, f"{what} {name}")

    def assert_same_numbers(self, actual, expected, what=""):
        """Equal bit for bit and finite."""
        actual, expected = np.asarray(actual), np.asarray(expected)
        self.assertEqual(actual.shape, expected.shape, what)
        self.assertTrue(np.isfinite(expected).all(), f"{what}: not finite")
        self.assertTrue(np.array_equal(actual, expected), f"{what}: relative RMS {relative_rms(actual, expected):.3g}")

    def assert_fails(self, done, *words):
        """One line of error that holds the words, and a status other than 0."""
        self.assertNotEqual(done.returncode, 0, "was expected to fail")
        lines = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(lines), 1, done.stderr[-2000:])
        for word in words:
            self.assertIn(word, lines[0])
