"""What the tests of the tools share, on top of what the end-to-end tests do."""

import atexit
import contextlib
import importlib.util
import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
CACHE = tempfile.mkdtemp(prefix="lolcats-test-hf-")  # where transformers copies a model's code, among others
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ.update(HF_HOME=CACHE, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error",
                  TOKENIZERS_PARALLELISM="false", PYTHONDONTWRITEBYTECODE="1")

import support  # noqa: E402

TOOLS = support.ROOT / "tools"


def needs(*modules):
    """Skips a test or a class where this Python lacks a package."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return unittest.skipIf(missing, f"{sys.executable} has no {', '.join(missing)}")


def needs_program(name):
    return unittest.skipUnless((support.BIN / name).exists(), f"{support.BIN} has no {name}")


def command_line(tool, arguments, options):
    line = [str(TOOLS / tool), *map(str, arguments)]
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        line += [option] if value is True else [option, str(value)] if value is not None else []
    return line


def run_tool(tool, *arguments, environment=None, prepare=None, **options):
    """Runs a Python program under tools/ and returns the completed process, whatever became of it. `prepare` is called
    in the new process first."""
    line = [sys.executable, *command_line(tool, arguments, options)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300,
                          env={**os.environ, **(environment or {})}, preexec_fn=prepare)


def run_here(tool, *arguments, **options):
    """The same in this process, which has imported already what takes seconds to import."""
    line, status = command_line(tool, arguments, options), 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors, \
            unittest.mock.patch.object(sys, "argv", line), \
            unittest.mock.patch.object(sys, "path", [str(Path(line[0]).parent), *sys.path]):
        try:
            runpy.run_path(line[0], run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess(line, status, out.getvalue(), errors.getvalue())


class ToolTest(support.TestCase):
    """A test with a directory of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if importlib.util.find_spec("torch"):
            import torch
            torch.set_num_threads(2)

    def run_tool(self, tool, *arguments, by=run_tool, **options):
        done = by(tool, *arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        return done

    def export(self, name, by=run_here, **options):
        """The exported directory."""
        self.run_tool("export/lolcats_export", by=by, out=self.path(name), **options)
        return self.path(name)

    def assert_refused(self, done, *words):
        """As assert_fails; a run that failed leaves nothing behind."""
        self.assert_fails(done, *words)
        self.assertNotIn("Traceback", done.stderr)


def load_model(directory, **options):
    """The exported model in float32, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM
    options = {"dtype": torch.float32, **options}
    return AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, **options).eval()


def logits(model, tokens, **options):
    import torch
    with torch.no_grad():
        return model(input_ids=torch.as_tensor(tokens, dtype=torch.long), **options).logits.float().numpy()


SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def write_tokenizer(directory, vocabulary):
    """A tokenizer whose words are w4, w5, ..., each the token of its number, after padding, BOS, EOS and unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    names = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocabulary))]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                            unk_token="<unk>").save_pretrained(directory)


def run_tests(names):
    """Runs the tests of files; the status is 77, ctest's for skipped, if every one of them was skipped."""
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromNames(names))
    if result.wasSuccessful() and result.testsRun == len(result.skipped) > 0:
        print("all skipped:", *sorted({reason for _, reason in result.skipped}), sep="\n  ")
        sys.exit(77)
    sys.exit(not result.wasSuccessful())


def main():
    """Runs the calling file's tests, or those of its that the command line names."""
    run_tests([f"__main__.{name}" for name in sys.argv[1:]] or ["__main__"])


if __name__ == "__main__":
    # Several files in one process, which imports torch and transformers once:  tool_support.py test_export test_recurrent
    import tool_support
    sys.path.insert(0, str(Path(__file__).parent))  # before the end-to-end tests, which have files of the same names
    tool_support.run_tests(sys.argv[1:])
