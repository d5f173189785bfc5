#pragma once
/// Named arrays in an HDF5 file: dumps of logits and gradients, parts of a trainer's state, and their reading.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/hdf5.hpp"

namespace lolcats::io {

/// Serial writer. The file is prepared aside and gets its name in close(); without close() nothing is left.
class ArrayFile {
public:
    explicit ArrayFile(const std::filesystem::path& path);
    ~ArrayFile();
    ArrayFile(const ArrayFile&) = delete;
    ArrayFile& operator=(const ArrayFile&) = delete;

    /// Writes a whole array, row-major, as f64 or f32. Names may hold dots but no slashes.
    void write(const std::string& name, const Shape& shape, const double* values);
    void write(const std::string& name, const Shape& shape, const float* values);

    /// Arrays added from now on go to the group `name`, which is made.
    void enter_group(const std::string& name);
    /// Attributes of the file's root group.
    void write_attribute(const std::string& name, const std::string& value);
    void write_attribute(const std::string& name, std::int64_t value);

    /// Makes an array (f32 or f64) to be filled by write_rows(). Rows that are never written read as NaN.
    void create(const std::string& name, const Shape& shape, DType dtype);
    /// Writes rows [first_row, first_row + count) of the first dimension.
    void write_rows(const std::string& name, std::int64_t first_row, std::int64_t count, const float* values);

    void close();

private:
    struct Entry {
        hdf5::Dataset dataset;
        Shape shape;
    };
    Entry& add(const std::string& name, const Shape& shape, DType dtype);
    void write_values(const std::string& name, const Shape& shape, DType dtype, const void* values);
    /// As hdf5::check, and gives the file up before it throws.
    template <class Result>
    Result check_written(Result result, const std::string& action);
    [[noreturn]] void give_up(const std::string& action, const std::string& reason);
    void abandon() noexcept;

    std::filesystem::path path_;
    std::filesystem::path temporary_;
    std::string group_; ///< where arrays go: "" or "NAME/"
    hdf5::File file_;
    std::map<std::string, Entry> entries_;
};

/// A whole dataset of any integer or floating type as doubles, row-major.
std::vector<double> read_array(const std::filesystem::path& path, const std::string& dataset, Shape* shape = nullptr);

} // namespace lolcats::io
