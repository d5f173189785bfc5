"""Safetensors files as streams: tensors are read from maps of the files and written piece by piece, so that memory does
not grow with a tensor or a file. Needs numpy alone, which has no bfloat16: its values are widened to float32 by hand.
"""

import json
import mmap
import struct
from pathlib import Path

import numpy as np

from tool_error import ToolError
from whole_output import read_json

PIECE = 1 << 20  # elements that are converted at once
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = {"f32": "F32", "bf16": "BF16", "f16": "F16"}
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
AGAIN = "fetch or write it again"


def widen(data, dtype):
    """Values of bytes of a floating type, as float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)


def narrow(values, dtype):
    """Bytes of float32 values in a floating type; bfloat16 is rounded to nearest, ties to even."""
    values = np.ascontiguousarray(values, "<f4")
    if dtype == "BF16":
        bits = values.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        quiet = (bits >> np.uint32(16)) | np.uint32(0x40)  # rounding could carry a NaN into infinity
        return np.where(np.isnan(values), quiet, rounded).astype("<u2").tobytes()
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = values.astype("<f2")
        if not np.isfinite(half[np.isfinite(values)]).all():
            raise ToolError("a value is too large for f16; give --dtype bf16 or f32")
        return half.tobytes()
    return values.tobytes()


class StoredTensor:
    """A tensor in a file: its type, shape and bytes."""

    def __init__(self, path, name, dtype, shape, data):
        self.path, self.name, self.dtype, self.shape, self.data = path, name, dtype, tuple(shape), data

    @property
    def count(self):
        return int(np.prod(self.shape, dtype=np.int64))

    def values(self, begin=0, end=None):
        """Elements [begin, end) in storage order, as float32."""
        self.require_floats()
        size = SIZES[self.dtype]
        return widen(self.data[begin * size:(self.count if end is None else end) * size], self.dtype)

    def require_floats(self):
        if self.dtype not in ("F64", "F32", "F16", "BF16"):
            raise ToolError(f"{self.path}: tensor {self.name} is of type {self.dtype}, not a floating one; give an "
                            "unquantised model")

    def array(self):
        return self.values().reshape(self.shape)


def are_texts(values):
    return all(isinstance(value, str) for value in values)


class TensorFile:
    """A mapped safetensors file."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            with open(path, "rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            length = struct.unpack("<Q", self.map[:8])[0]
            if 8 + length > len(self.map):
                raise ValueError("its header is cut off")
            header = json.loads(self.map[8:8 + length])
            self.metadata = header.pop("__metadata__", {})
            if not isinstance(self.metadata, dict) or not are_texts(self.metadata.values()):
                raise ValueError("its metadata are no texts by name")
            view = memoryview(self.map)[8 + length:]
            self.tensors = {name: self.tensor(name, info, view) for name, info in header.items()}
        except FileNotFoundError:
            raise ToolError(f"{path}: no such file; {AGAIN}") from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error) as error:
            raise ToolError(f"{path}: is not a safetensors file ({error}); {AGAIN}") from None

    def tensor(self, name, info, view):
        begin, end = info["data_offsets"]
        tensor = StoredTensor(self.path, name, info["dtype"], info["shape"], view[begin:end])
        if not 0 <= begin <= end <= len(view) or end - begin != tensor.count * SIZES[tensor.dtype]:
            raise ValueError(f"tensor {name} does not fit its bytes, as of a file that is cut off")
        return tensor


class Checkpoint:
    """The tensors of a Hugging Face directory, in one file or in shards."""

    def __init__(self, directory):
        directory = Path(directory)
        self.directory = directory
        if (directory / SINGLE_FILE).exists():
            names = [SINGLE_FILE]
            weight_map = None
        elif (directory / INDEX_FILE).exists():
            weight_map = read_json(directory / INDEX_FILE, AGAIN).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map or not are_texts(weight_map.values()):
                raise ToolError(f"{directory / INDEX_FILE}: has no weight_map of tensors to files; {AGAIN}")
            names = sorted(set(weight_map.values()))
        else:
            raise ToolError(f"{directory}: has neither {SINGLE_FILE} nor {INDEX_FILE}; give the Hugging Face directory "
                            "of the model, in safetensors")
        shards = {}
        for name in names:
            if Path(name).name != name:
                raise ToolError(f"{directory / INDEX_FILE}: names the shard {name!r}, no plain file name; {AGAIN}")
            shards[name] = TensorFile(directory / name).tensors
        if weight_map is None:
            self.tensors = shards[SINGLE_FILE]
            return
        self.tensors = {}
        for name, shard in weight_map.items():  # another shard may hold an older one of that name
            if name not in shards[shard]:
                raise ToolError(f"{directory / shard}: has no tensor {name}, which the index puts there; {AGAIN}")
            self.tensors[name] = shards[shard][name]

    def __getitem__(self, name):
        if name not in self.tensors:
            raise ToolError(f"{self.directory}: has no tensor {name}; {AGAIN}")
        return self.tensors[name]


class Output:
    """A tensor to write: `pieces()` gives its bytes one after the other."""

    def __init__(self, name, dtype, shape, pieces):
        self.name, self.dtype, self.shape, self.pieces = name, dtype, tuple(shape), pieces

    @property
    def size(self):
        return int(np.prod(self.shape, dtype=np.int64)) * SIZES[self.dtype]


def copied(tensor, dtype):
    """A stored tensor in the same or another floating type."""
    tensor.require_floats()

    def pieces():
        for begin in range(0, tensor.count, PIECE):
            end = min(begin + PIECE, tensor.count)
            if dtype == tensor.dtype:
                yield tensor.data[begin * SIZES[dtype]:end * SIZES[dtype]]
            else:
                yield narrow(tensor.values(begin, end), dtype)

    return Output(tensor.name, dtype, tensor.shape, pieces)


def write_tensors(path, outputs, metadata, advance=lambda count: None):
    """Tells advance() of the bytes written."""
    header, offset = {"__metadata__": metadata}, 0
    for output in outputs:
        header[output.name] = {"dtype": output.dtype, "shape": list(output.shape),
                               "data_offsets": [offset, offset + output.size]}
        offset += output.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for output in outputs:
            for piece in output.pieces():
                file.write(piece)
                advance(len(piece))


def split_into_shards(outputs, largest):
    """Lists of tensors of at most `largest` bytes together, or of one that is larger alone."""
    shards, size = [[]], 0
    for output in outputs:
        if shards[-1] and size + output.size > largest:
            shards.append([])
            size = 0
        shards[-1].append(output)
        size += output.size
    return shards


def write_checkpoint(directory, outputs, largest, advance=lambda count: None):
    """A single file, or shards and their index, as transformers reads them."""
    shards = split_into_shards(outputs, largest)
    if len(shards) == 1:
        return write_tensors(directory / SINGLE_FILE, outputs, {"format": "pt"}, advance)
    weight_map = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_tensors(directory / name, shard, {"format": "pt"}, advance)
        weight_map.update({output.name: name for output in shard})
    index = {"metadata": {"total_size": sum(output.size for output in outputs)}, "weight_map": weight_map}
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
