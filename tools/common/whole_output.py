"""Output that is there as a whole or not at all: written aside, synced and renamed."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

from json_numbers import finite
from tool_error import ToolError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAKE_ROOM = "make room, or write elsewhere"


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_existing(path):
    if path.exists() or path.is_symlink():
        raise ToolError(f"{path}: is there already; remove it or give another name")


@contextlib.contextmanager
def naming_what_is_full(path):
    """Errors of writing do not name the file by themselves."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ToolError(f"{path}: cannot be written ({os.strerror(error.errno)}); {MAKE_ROOM}") from None


@contextlib.contextmanager
def whole_directory(path):
    """A directory to fill that gets its name once all went well, and is removed otherwise."""
    path = Path(path)
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{os.getpid()}.part"
    aside.mkdir()
    try:
        with naming_what_is_full(path):
            yield aside
            for file in sorted(aside.rglob("*"), reverse=True):
                sync(file)
            sync(aside)
        refuse_existing(path)
        aside.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path):
    """The path of a file to write that gets its name once all went well, and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        with naming_what_is_full(path):
            yield aside
            sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def read_json(path, remedy):
    """The JSON object in a file. All its numbers are finite."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=finite, parse_constant=finite)
    except FileNotFoundError:
        raise ToolError(f"{path}: no such file; {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path}: is not JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise ToolError(f"{path}: is not a JSON object; {remedy}")
    return value


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
