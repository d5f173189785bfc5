#pragma once
/// HDF5 identifiers that close themselves, and HDF5's errors as lolcats::Error.
#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <utility>

#include "io/dtype.hpp"

namespace lolcats::io::hdf5 {

/// HDF5 is not built for threads everywhere: whoever calls it holds this (recursive) lock. Taking it also silences the
/// library's own printing of errors.
[[nodiscard]] std::unique_lock<std::recursive_mutex> lock_library();

/// Owns an identifier. Closing errors are ignored in the destructor; call close() where they matter.
template <herr_t (*Close)(hid_t)>
class Handle {
public:
    Handle() = default;
    explicit Handle(hid_t id) : id_(id) {}
    Handle(Handle&& other) noexcept : id_(other.release()) {}
    Handle& operator=(Handle&& other) noexcept {
        if (this != &other) {
            close();
            id_ = other.release();
        }
        return *this;
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { close(); }

    [[nodiscard]] hid_t get() const { return id_; }
    [[nodiscard]] explicit operator bool() const { return id_ >= 0; }
    [[nodiscard]] hid_t release() noexcept { return std::exchange(id_, H5I_INVALID_HID); }
    /// Negative if HDF5 reports an error; the handle is empty afterwards either way.
    herr_t close() noexcept {
        if (id_ < 0) return 0;
        const auto lock = lock_library();
        return Close(release());
    }

private:
    hid_t id_ = H5I_INVALID_HID;
};

using File = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Dataspace = Handle<H5Sclose>;
using Datatype = Handle<H5Tclose>;
using Attribute = Handle<H5Aclose>;
using PropertyList = Handle<H5Pclose>;

/// The library's error stack as one line, innermost cause first; the stack is cleared.
std::string take_error();

/// Returns `result` if it is not negative, else throws Error "PATH: cannot ACTION (what HDF5 says)".
template <class Result>
Result check(Result result, const std::filesystem::path& path, const std::string& action);

/// Opens an existing file with the serial driver, read-only. A missing file or one that is not HDF5 is an Error.
File open_read_only(const std::filesystem::path& path);

/// Flushes a file of the serial driver. Where the disk has no room for all of it, that is found before HDF5 writes,
/// which cannot close a file that it failed to flush: false, with the reason in `error`, and the file can be discarded.
bool flush(const File& file, std::string& error);

/// Lets whatever HDF5 still has to write of this file go nowhere. For a file that is given up: with a full disk it
/// could not be closed, and HDF5 crashes when the program ends with such a file open. Only for the serial driver.
void discard_writes(const File& file) noexcept;

/// Opens a dataset; one that is missing is an Error that names it.
Dataset open_dataset(const File& file, const std::filesystem::path& path, const std::string& name);
/// Whether the file has it. A disk that does not tell is an Error, for what cannot be found need not be missing.
bool has_dataset(const File& file, const std::filesystem::path& path, const std::string& name);
Shape shape_of(const Dataset& dataset, const std::filesystem::path& path);

/// Selects `count` elements from `start`, both of the dataspace's rank.
Dataspace select(const Dataset& dataset, const std::filesystem::path& path, const Shape& start, const Shape& count);
Dataspace make_dataspace(const Shape& shape);

/// How to create a dataset that does not say when it was written: equal content makes equal files.
PropertyList untimed_dataset(const std::filesystem::path& path);

/// The 16-bit brain floating-point type as HDF5 describes it. HDF5's own conversion *to* this type rounds wrongly:
/// write with the memory type equal to the file type.
Datatype make_bfloat16_type();

/// Attributes of the file's root group.
void write_attribute(const File& file, const std::filesystem::path& path, const std::string& name,
                     const std::string& value);
void write_attribute(const File& file, const std::filesystem::path& path, const std::string& name, std::int64_t value);
std::string read_string_attribute(const File& file, const std::filesystem::path& path, const std::string& name);
std::int64_t read_int_attribute(const File& file, const std::filesystem::path& path, const std::string& name);

/// The same for what was read, with the remedy for a disk that does not give it.
void check_read(herr_t result, const std::filesystem::path& path, const std::string& what);

[[noreturn]] void throw_error(const std::filesystem::path& path, const std::string& action);

template <class Result>
Result check(Result result, const std::filesystem::path& path, const std::string& action) {
    if (result < 0) throw_error(path, action);
    return result;
}

} // namespace lolcats::io::hdf5
