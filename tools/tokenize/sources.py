"""Documents of files as streams: memory does not grow with a file. Every byte read goes into the file's hash."""

import codecs
import gzip
import hashlib
import io
import json
import zlib
from pathlib import Path

from tool_error import ToolError

try:
    import zstandard
except ImportError:  # only .zst needs it
    zstandard = None

SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt", ".txt.gz", ".txt.zst")
PIECE = 1 << 18  # characters of plain text that are tokenised at once
COMPRESSED_PIECE = 1 << 16  # bytes that are decompressed at once: what they hold is in memory as a whole
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, *([zstandard.ZstdError] if zstandard else []))


def find_files(paths):
    """The files named, and those of the directories named, in order of their names."""
    files = []
    for path in map(Path, paths):
        if not path.exists():
            raise ToolError(f"{path}: no such file or directory; give the corpus")
        found = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        if not found:
            raise ToolError(f"{path}: holds no file of {', '.join(SUFFIXES)}")
        files += found
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise ToolError(f"{file}: is not of {', '.join(SUFFIXES)}; name it so, or convert it")
    return files


class Hashed(io.RawIOBase):
    """A file whose bytes are hashed and counted as they are read."""

    def __init__(self, path, advance):
        super().__init__()
        self.file, self.hash, self.bytes, self.advance = open(path, "rb"), hashlib.sha256(), 0, advance

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.file.readinto(buffer)
        self.hash.update(memoryview(buffer)[:count])
        self.bytes += count
        self.advance(count)
        return count

    def read_rest(self):
        """So that the hash is the whole file's even if not all of it was wanted."""
        while self.read(1 << 20):
            pass

    def close(self):
        self.file.close()
        super().close()


def frames(raw):
    """The bytes in a .zst file's frames, in pieces. zstandard's own reader takes a file that is cut off as whole."""
    frame = None
    while data := raw.read(COMPRESSED_PIECE):
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(data)
            data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame:
        raise EOFError("its last frame has no end")


class Pieces(io.RawIOBase):
    """A file of the bytes that an iterator gives."""

    def __init__(self, pieces):
        super().__init__()
        self.pieces, self.rest = pieces, memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = memoryview(piece)
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def decompressed(path, raw):
    if path.name.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if path.name.endswith(".zst"):
        if zstandard is None:
            raise ToolError(f"{path}: needs the Python package zstandard; install it, or decompress the file")
        return io.BufferedReader(Pieces(frames(raw)), 1 << 20)
    return io.BufferedReader(raw, 1 << 20)


class Source:
    """A file, and the hash of it once its documents were read."""

    def __init__(self, path, advance=lambda count: None):
        self.path, self.raw = path, Hashed(path, advance)
        self.readers = []  # kept, as a reader that is let go closes the file

    def described(self):
        self.raw.read_rest()
        text = {"name": self.path.name, "bytes": self.raw.bytes, "sha256": self.raw.hash.hexdigest()}
        self.raw.close()
        return text

    def fail(self, where, what, remedy):
        raise ToolError(f"{self.path}: {where}: {what}; {remedy}")

    def stream(self):
        self.readers.append(decompressed(self.path, self.raw))
        return self.readers[-1]

    def guarded(self, items):
        """The items, with errors of the file's encoding and compression told in a line."""
        try:
            yield from items
        except UnicodeDecodeError as error:
            raise ToolError(f"{self.path}: is not UTF-8 ({error.reason}); convert it") from None
        except DAMAGED as error:
            raise ToolError(f"{self.path}: is damaged or cut off ({error}); fetch it again") from None

    def parse(self, text, where):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            self.fail(where, f"is not JSON ({error})", "mend or remove it")

    def json_lines(self):
        self.readers.append(io.TextIOWrapper(self.stream(), encoding="utf-8", newline="\n"))
        for number, line in enumerate(self.readers[-1], 1):
            if line.strip():
                yield f"line {number}", self.parse(line, f"line {number}")

    def json_array(self):
        values = self.parse(b"".join(iter(lambda: self.raw.read(1 << 20), b"")).decode("utf-8"), "the file")
        if not isinstance(values, list):
            self.fail("the file", "is no JSON array", "give one, or JSON lines")
        yield from ((f"entry {number}", value) for number, value in enumerate(values))

    def records(self):
        """Objects of JSON lines, or of one JSON array, each with where it is."""
        yield from self.guarded(self.json_array() if self.path.name.endswith(".json") else self.json_lines())

    def field(self, record, key, where, missing=None):
        """A string of a record."""
        value = record.get(key) if isinstance(record, dict) else None
        value = missing if value is None else value
        if not isinstance(value, str):
            self.fail(where, f"has no text '{key}'", "mend the file, or name another field")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON may escape one half of a surrogate pair alone
            self.fail(where, f"'{key}' holds {value[error.start]!a}, which is no character", "mend or remove it")
        return value

    def pieces(self, field):
        """(text, is this the document's last piece): a plain text is one document, a record another."""
        if not self.path.name.endswith((".txt", ".txt.gz", ".txt.zst")):
            for where, record in self.records():
                yield self.field(record, field, where), True
            return
        yield from self.guarded(self.text_pieces())

    def text_pieces(self):
        """Cut at the ends of lines where there are any."""
        decode, stream, kept = codecs.getincrementaldecoder("utf-8")().decode, self.stream(), ""
        while data := stream.read(PIECE):
            kept += decode(data)
            cut = kept.rfind("\n") + 1 or (len(kept) if len(kept) > 4 * PIECE else 0)
            if cut:
                yield kept[:cut], False
                kept = kept[cut:]
        yield kept + decode(b"", final=True), True
