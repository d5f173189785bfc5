#pragma once
/// Reading and writing of safetensors files: 8 bytes of header length, a JSON header, the tensors' bytes.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/dtype.hpp"

namespace lolcats::io {

struct TensorInfo {
    DType dtype;
    Shape shape;
    std::size_t begin, end; ///< bytes in the data section
};

/// A read-only memory map of a safetensors file whose header has been checked against the whole of the specification.
/// Reading may be done from several threads at once. Pages are handed back after each read, so resident memory does not
/// grow with what was read. A page that the disk does not give is an Error like any other.
class SafetensorsFile {
public:
    /// Throws Error if the file cannot be opened or is not a well-formed safetensors file.
    explicit SafetensorsFile(const std::filesystem::path& path);
    SafetensorsFile(SafetensorsFile&& other) noexcept;
    SafetensorsFile& operator=(SafetensorsFile&& other) noexcept;
    SafetensorsFile(const SafetensorsFile&) = delete;
    SafetensorsFile& operator=(const SafetensorsFile&) = delete;
    ~SafetensorsFile();

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
    /// The free text pairs of `__metadata__`.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
    [[nodiscard]] bool contains(const std::string& name) const { return tensors_.contains(name); }
    /// An Error names the file, the missing tensor and the nearest name there is.
    [[nodiscard]] const TensorInfo& info(const std::string& name) const;
    /// Hash of a tensor's type, shape and values, wherever in a file it lies: of all its bytes up to 64 KiB, else of 16
    /// pieces of 4 KiB, the first at its begin, the last at its end and the others at even distances.
    [[nodiscard]] std::uint64_t fingerprint(const std::string& name) const;

    /// Copies the tensor, converted from f64, f32, f16 or bf16 to T (float, double or BFloat16). A shape other than
    /// `expected` is an Error.
    template <class T>
    void read(const std::string& name, const Shape& expected, T* out) const;

    /// Copies rows [first, first + count) of the first dimension of a tensor whose whole shape is `expected`.
    template <class T>
    void read_rows(const std::string& name, const Shape& expected, std::int64_t first, std::int64_t count,
                   T* out) const;

private:
    void parse_header();
    [[nodiscard]] const TensorInfo& checked_info(const std::string& name, const Shape& expected) const;
    template <class T>
    void convert_range(const std::string& name, std::size_t begin, std::size_t count, T* out) const;
    void copy(std::size_t begin, std::size_t bytes, const std::string& what, void* out) const;
    [[noreturn]] void fail_to_read(const std::string& what) const;
    void unmap() noexcept;

    std::filesystem::path path_;
    const std::byte* map_ = nullptr;
    std::size_t size_ = 0;        ///< bytes of the file
    std::size_t data_offset_ = 0; ///< where the data section starts
    std::map<std::string, TensorInfo> tensors_;
    std::map<std::string, std::string> metadata_;
};

struct TensorToWrite {
    std::string name;
    DType dtype;
    Shape shape;
    const void* data; ///< the elements, of type `dtype`, row-major
};

/// Writes the file atomically (see io/file.hpp), tensors aligned to their element size.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata);

} // namespace lolcats::io
