#include "io/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "io/file.hpp"
#include "io/json.hpp"
#include "io/mapped_memory.hpp"
#include "io/nearest_name.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

using nlohmann::json;

constexpr std::size_t length_bytes = 8;
constexpr std::uint64_t longest_header = 100'000'000; // as in the reference implementation
constexpr const char* metadata_key = "__metadata__";

/// What a file of another kind is, by its first bytes; empty if it is none of those one meets by mistake.
std::string_view other_kind(std::string_view start) {
    if (start.starts_with("\x89HDF")) return "an HDF5 file";
    if (start.starts_with("PK\x03\x04")) return "a zip archive (PyTorch's .bin or .pt format)";
    if (start.starts_with("\x80\x02") || start.starts_with("\x80\x04")) return "a Python pickle";
    if (start.starts_with("GGUF")) return "a GGUF file";
    if (start.starts_with("version https://git-lfs")) return "a Git LFS pointer (git lfs pull fetches the file itself)";
    return {};
}

/// Refuses keys given twice, which the library would let pass.
json parse_strictly(std::string_view text, const std::string& file) {
    std::vector<std::set<std::string>> keys;
    const auto refuse_twins = [&](int, json::parse_event_t event, json& parsed) {
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
            fail("{}: the header has the name \"{}\" twice", file, printable(parsed.get<std::string>()));
        }
        return true;
    };
    try {
        return parse_json(text, file, "it is no safetensors file", refuse_twins);
    } catch (const json::exception& error) {
        fail("{}: the header is not valid JSON ({}): the file is damaged, or no safetensors file", file,
             printable(error.what()));
    }
}

std::uint64_t unsigned_value(const json& value, const std::string& where, std::string_view what) {
    if (!value.is_number_unsigned()) fail("{}: {} is not a list of integers >= 0", where, what);
    return value.get<std::uint64_t>();
}

const json& member(const json& object, const char* key, const std::string& where) {
    const auto found = object.find(key);
    if (found == object.end()) fail("{}: has no \"{}\"", where, key);
    return *found;
}

DType parse_dtype(const json& tensor, const std::string& where) {
    const json& value = member(tensor, "dtype", where);
    if (!value.is_string()) fail("{}: its dtype is not a string", where);
    const auto name = value.get<std::string>();
    const auto dtype = dtype_named(name);
    if (!dtype) fail("{}: has the unknown dtype \"{}\"", where, printable(name));
    return *dtype;
}

Shape parse_shape(const json& tensor, const std::string& where) {
    const json& value = member(tensor, "shape", where);
    if (!value.is_array()) fail("{}: its shape is not a list of integers >= 0", where);
    Shape shape;
    for (const json& extent : value) {
        const std::uint64_t number = unsigned_value(extent, where, "its shape");
        if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
            fail("{}: the extent {} in its shape is too large", where, number);
        }
        shape.push_back(static_cast<std::int64_t>(number));
    }
    return shape;
}

TensorInfo parse_tensor(const json& tensor, std::size_t data_bytes, const std::string& where) {
    if (!tensor.is_object()) fail("{}: is not described by a JSON object", where);
    TensorInfo info{parse_dtype(tensor, where), parse_shape(tensor, where), 0, 0};
    const json& offsets = member(tensor, "data_offsets", where);
    if (!offsets.is_array() || offsets.size() != 2) fail("{}: its data_offsets are not two numbers", where);
    info.begin = unsigned_value(offsets[0], where, "data_offsets");
    info.end = unsigned_value(offsets[1], where, "data_offsets");
    if (info.begin > info.end || info.end > data_bytes) {
        fail("{}: its data_offsets [{}, {}] lie outside the {} bytes of data: the file is damaged or cut short", where,
             info.begin, info.end, data_bytes);
    }
    const auto elements = static_cast<std::uint64_t>(element_count(info.shape, where));
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(elements, size_of(info.dtype), &bytes) || bytes != info.end - info.begin) {
        fail("{}: its {} bytes do not hold {} of shape {}", where, info.end - info.begin, name_of(info.dtype),
             to_string(info.shape));
    }
    return info;
}

std::map<std::string, std::string> parse_metadata(const json& value, const std::string& file) {
    if (!value.is_object()) fail("{}: {} is not a JSON object", file, metadata_key);
    std::map<std::string, std::string> metadata;
    for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) fail("{}: \"{}\" of {} is not a string", file, printable(key), metadata_key);
        metadata[key] = text.get<std::string>();
    }
    return metadata;
}

/// The specification wants the tensors to cover the data section with no overlap and no hole.
void check_cover(const std::map<std::string, TensorInfo>& tensors, std::size_t data_bytes, const std::string& file) {
    std::vector<std::pair<std::pair<std::size_t, std::size_t>, const std::string*>> ranges;
    for (const auto& [name, info] : tensors) ranges.push_back({{info.begin, info.end}, &name});
    std::sort(ranges.begin(), ranges.end());
    std::size_t covered = 0;
    for (const auto& [range, name] : ranges) {
        if (range.first < covered) {
            fail("{}: tensor {} overlaps the one before it at byte {}", file, printable(*name), range.first);
        }
        if (range.first > covered) {
            fail("{}: bytes {} to {} before tensor {} belong to no tensor", file, covered, range.first,
                 printable(*name));
        }
        covered = range.second;
    }
    if (covered != data_bytes) {
        fail("{}: the last {} bytes belong to no tensor: the file is damaged", file, data_bytes - covered);
    }
}

/// Gives the whole pages inside the range back: they would count as resident until the file is closed.
void drop_pages(const std::byte* begin, const std::byte* end) {
    static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
    const auto last = reinterpret_cast<std::uintptr_t>(end) / page * page;
    // A hint only: nothing is lost if the kernel declines.
    if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

} // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("{}: cannot open: {}; fetch or make this file", path.string(), std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
    void* map = size_ < length_bytes ? MAP_FAILED : ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int map_error = errno;
    ::close(fd);
    if (!regular) fail("{}: is not a regular file; give a safetensors file", path.string());
    if (size_ < length_bytes) {
        fail("{}: has {} bytes, too few for a safetensors file; fetch or make it again", path.string(), size_);
    }
    if (map == MAP_FAILED) fail("{}: cannot map into memory: {}", path.string(), std::strerror(map_error));
    map_ = static_cast<const std::byte*>(map);
    try {
        parse_header();
    } catch (const Error& error) {
        unmap();
        fail("{}; fetch or make it again", error.what());
    } catch (...) {
        unmap();
        throw;
    }
}

void SafetensorsFile::parse_header() {
    const std::string file = path_.string();
    std::string start(std::min<std::size_t>(size_, 64), '\0');
    copy(0, start.size(), "its header", start.data());
    if (const auto kind = other_kind(start); !kind.empty()) fail("{}: is no safetensors file but {}", file, kind);
    std::uint64_t length = 0;
    std::memcpy(&length, start.data(), length_bytes);
    if (length > longest_header) fail("{}: claims a header of {} bytes: it is no safetensors file", file, length);
    if (length > size_ - length_bytes) {
        fail("{}: claims a header of {} bytes but has {} in all: it is cut short, or no safetensors file", file, length,
             size_);
    }
    std::string text(length, '\0');
    copy(length_bytes, length, "its header", text.data());
    if (!text.starts_with('{')) fail("{}: its header is not a JSON object: it is no safetensors file", file);
    const json header = parse_strictly(text, file);
    data_offset_ = length_bytes + length;
    const std::size_t data_bytes = size_ - data_offset_;
    for (const auto& [name, value] : header.items()) {
        if (name == metadata_key) {
            metadata_ = parse_metadata(value, file);
        } else {
            tensors_.emplace(name, parse_tensor(value, data_bytes, file + ": tensor " + printable(name)));
        }
    }
    check_cover(tensors_, data_bytes, file);
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)), map_(std::exchange(other.map_, nullptr)), size_(other.size_),
      data_offset_(other.data_offset_), tensors_(std::move(other.tensors_)), metadata_(std::move(other.metadata_)) {}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
    if (this == &other) return *this;
    unmap();
    path_ = std::move(other.path_);
    map_ = std::exchange(other.map_, nullptr);
    size_ = other.size_;
    data_offset_ = other.data_offset_;
    tensors_ = std::move(other.tensors_);
    metadata_ = std::move(other.metadata_);
    return *this;
}

SafetensorsFile::~SafetensorsFile() {
    unmap();
}

void SafetensorsFile::unmap() noexcept {
    if (map_ != nullptr) ::munmap(const_cast<std::byte*>(map_), size_);
    map_ = nullptr;
}

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
        fail("{}: has no tensor {}; the nearest name in it is \"{}\"", path_.string(), printable(name),
             printable(nearest_key(name, tensors_)));
    }
    return found->second;
}

void SafetensorsFile::fail_to_read(const std::string& what) const {
    fail(
        "{}: {} cannot be read: the disk failed, or the file has been cut short since it was opened; look at the disk, "
        "or fetch the file again",
        path_.string(), what);
}

void SafetensorsFile::copy(std::size_t begin, std::size_t bytes, const std::string& what, void* out) const {
    if (!read_mapped([&] { std::memcpy(out, map_ + begin, bytes); })) fail_to_read(what);
}

std::uint64_t SafetensorsFile::fingerprint(const std::string& name) const {
    constexpr std::size_t page = 4096;
    constexpr std::size_t pages = 16;
    const TensorInfo& tensor = info(name);
    const std::size_t bytes = tensor.end - tensor.begin;
    const std::size_t begin = data_offset_ + tensor.begin;
    std::string text = fmt::format("{} {} ", name_of(tensor.dtype), to_string(tensor.shape));
    const auto add = [&](std::size_t from, std::size_t count) {
        text.resize(text.size() + count);
        copy(begin + from, count, "tensor " + printable(name), text.data() + text.size() - count);
    };
    if (bytes <= pages * page) {
        add(0, bytes);
    } else {
        for (std::size_t i = 0; i < pages; ++i) add((bytes - page) * i / (pages - 1), page);
    }
    drop_pages(map_ + begin, map_ + begin + bytes);
    return hash64(std::as_bytes(std::span(text)));
}

const TensorInfo& SafetensorsFile::checked_info(const std::string& name, const Shape& expected) const {
    const TensorInfo& tensor = info(name);
    if (tensor.shape != expected) {
        fail("{}: tensor {} has shape {}, not {}: the file belongs to another model or run; give the right one",
             path_.string(), printable(name), to_string(tensor.shape), to_string(expected));
    }
    if (!is_floating(tensor.dtype)) {
        fail("{}: tensor {} has type {}, not a floating-point type; quantised weights are not supported: give the "
             "unquantised ones",
             path_.string(), printable(name), name_of(tensor.dtype));
    }
    return tensor;
}

/// By pieces, so that no more than one piece of the map is resident at a time.
template <class T>
void SafetensorsFile::convert_range(const std::string& name, std::size_t begin, std::size_t count, T* out) const {
    const DType dtype = info(name).dtype;
    constexpr std::size_t piece = 1U << 22; // elements
    const std::byte* source = map_ + data_offset_ + begin;
    for (std::size_t done = 0; done < count; done += piece) {
        const std::size_t n = std::min(piece, count - done);
        const std::byte* end = source + n * size_of(dtype);
        if (!read_mapped([&] { convert_elements(dtype, source, n, out + done); })) {
            fail_to_read("tensor " + printable(name));
        }
        drop_pages(source, end);
        source = end;
    }
}

template <class T>
void SafetensorsFile::read(const std::string& name, const Shape& expected, T* out) const {
    const TensorInfo& tensor = checked_info(name, expected);
    convert_range(name, tensor.begin, (tensor.end - tensor.begin) / size_of(tensor.dtype), out);
}

template <class T>
void SafetensorsFile::read_rows(const std::string& name, const Shape& expected, std::int64_t first, std::int64_t count,
                                T* out) const {
    const TensorInfo& tensor = checked_info(name, expected);
    const std::int64_t rows = expected.empty() ? 0 : expected.front();
    if (first < 0 || count < 0 || first > rows - count) {
        fail("{}: tensor {} has {} rows; rows [{}, {} + {}) were asked for", path_.string(), printable(name), rows,
             first, first, count);
    }
    if (count == 0) return;
    const std::size_t row_bytes = (tensor.end - tensor.begin) / static_cast<std::size_t>(rows);
    convert_range(name, tensor.begin + static_cast<std::size_t>(first) * row_bytes,
                  static_cast<std::size_t>(count) * (row_bytes / size_of(tensor.dtype)), out);
}

#define LOLCATS_INSTANTIATE(T)                                                                                         \
    template void SafetensorsFile::read(const std::string&, const Shape&, T*) const;                                   \
    template void SafetensorsFile::read_rows(const std::string&, const Shape&, std::int64_t, std::int64_t, T*) const;
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
LOLCATS_INSTANTIATE(BFloat16)
#undef LOLCATS_INSTANTIATE

namespace {

/// The header, padded with blanks so that the data section starts aligned to 8 bytes.
std::string make_header(const std::vector<const TensorToWrite*>& tensors,
                        const std::map<std::string, std::string>& metadata, const std::string& file) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header[metadata_key] = metadata;
    std::size_t offset = 0;
    for (const TensorToWrite* tensor : tensors) {
        if (tensor->name == metadata_key || header.contains(tensor->name)) {
            fail("{}: tensor name {} is used twice or reserved", file, printable(tensor->name));
        }
        const auto count = element_count(tensor->shape, file + ": tensor " + printable(tensor->name));
        const std::size_t end = offset + static_cast<std::size_t>(count) * size_of(tensor->dtype);
        header[tensor->name] = {
            {"dtype", name_of(tensor->dtype)}, {"shape", tensor->shape}, {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    return text;
}

} // namespace

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
    std::vector<const TensorToWrite*> ordered;
    for (const auto& tensor : tensors) ordered.push_back(&tensor);
    // Wide types first keeps every tensor aligned to its elements.
    std::stable_sort(ordered.begin(), ordered.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
        return size_of(a->dtype) > size_of(b->dtype);
    });
    const std::string header = make_header(ordered, metadata, path.string());
    const std::uint64_t length = header.size();
    write_file_atomically(path, [&](int fd) {
        write_all(fd, &length, sizeof length, path);
        write_all(fd, header.data(), header.size(), path);
        for (const TensorToWrite* tensor : ordered) {
            const auto count = static_cast<std::size_t>(element_count(tensor->shape, path.string()));
            write_all(fd, tensor->data, count * size_of(tensor->dtype), path);
        }
    });
}

} // namespace lolcats::io
