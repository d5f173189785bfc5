#include "io/hdf5.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "io/file.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io::hdf5 {
namespace {

/// A description without the numbers around the system's own message, if it quotes one.
std::string brief(std::string_view description) {
    constexpr std::string_view quote = "error message = '";
    const std::size_t begin = description.find(quote);
    if (begin == std::string_view::npos) return printable(description, 400);
    const std::string_view from = description.substr(begin + quote.size());
    return printable(description.substr(0, description.find(':'))) + ": " + printable(from.substr(0, from.find('\'')));
}

/// Joins the distinct descriptions of an error stack, innermost first.
herr_t collect(unsigned depth, const H5E_error2_t* entry, void* text) {
    constexpr unsigned deepest = 3; // what follows only says which functions passed the error on
    if (depth >= deepest || entry->desc == nullptr) return 0;
    auto& message = *static_cast<std::string*>(text);
    const std::string description = brief(entry->desc);
    if (message.find(description) != std::string::npos) return 0;
    message += (message.empty() ? "" : ", ") + description;
    return 0;
}

std::vector<hsize_t> to_extents(const Shape& shape) {
    return {shape.begin(), shape.end()};
}

Attribute open_attribute(const File& file, const std::filesystem::path& path, const std::string& name) {
    return Attribute(check(H5Aopen(file.get(), name.c_str(), H5P_DEFAULT), path, "open the attribute " + name));
}

} // namespace

std::unique_lock<std::recursive_mutex> lock_library() {
    static std::recursive_mutex mutex;
    std::unique_lock lock(mutex);
    // Some builds keep one error stack a thread.
    thread_local const bool silenced = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
    static_cast<void>(silenced);
    return lock;
}

std::string take_error() {
    std::string message;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &message);
    H5Eclear2(H5E_DEFAULT);
    return message.empty() ? "HDF5 gives no reason" : message;
}

void throw_error(const std::filesystem::path& path, const std::string& action) {
    fail("{}: cannot {} ({})", path.string(), action, take_error());
}

void check_read(herr_t result, const std::filesystem::path& path, const std::string& what) {
    if (result < 0)
        fail("{}: cannot read {} ({}); look at the disk, then run the same command again", path.string(), what,
             take_error());
}

File open_read_only(const std::filesystem::path& path) {
    const auto lock = lock_library();
    std::error_code error;
    if (!std::filesystem::exists(path, error)) fail("{}: there is no such file", path.string());
    const htri_t recognised = H5Fis_hdf5(path.c_str());
    if (recognised == 0) fail("{}: is not an HDF5 file", path.string());
    check(recognised, path, "read it");
    return File(check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), path, "open it as HDF5"));
}

bool flush(const File& file, std::string& error) {
    void* descriptor = nullptr; // the serial driver's int
    haddr_t end = 0;
    if (H5Fget_vfd_handle(file.get(), H5P_DEFAULT, &descriptor) >= 0 && H5Fget_eoa(file.get(), &end) >= 0 &&
        ::fallocate(*static_cast<int*>(descriptor), 0, 0, static_cast<off_t>(end)) != 0 && errno == ENOSPC) {
        error = std::strerror(ENOSPC);
        return false;
    }
    if (H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0) return true;
    error = take_error();
    return false;
}

void discard_writes(const File& file) noexcept {
    void* descriptor = nullptr; // the serial driver's int
    const int nowhere = ::memfd_create("discarded", MFD_CLOEXEC);
    if (nowhere < 0) return;
    if (H5Fget_vfd_handle(file.get(), H5P_DEFAULT, &descriptor) >= 0) ::dup2(nowhere, *static_cast<int*>(descriptor));
    ::close(nowhere);
}

bool has_dataset(const File& file, const std::filesystem::path& path, const std::string& name) {
    const auto lock = lock_library();
    // Group by group: HDF5 also fails to tell where the group is missing that the name would be in.
    for (std::size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1)) {
        const htri_t group = H5Lexists(file.get(), name.substr(0, end).c_str(), H5P_DEFAULT);
        if (check(group, path, "look for " + name) == 0) return false;
    }
    if (check(H5Lexists(file.get(), name.c_str(), H5P_DEFAULT), path, "look for " + name) == 0) return false;
    const hid_t object = check(H5Oopen(file.get(), name.c_str(), H5P_DEFAULT), path, "open " + name);
    const bool result = H5Iget_type(object) == H5I_DATASET;
    H5Oclose(object);
    return result;
}

Dataset open_dataset(const File& file, const std::filesystem::path& path, const std::string& name) {
    const auto lock = lock_library();
    if (!has_dataset(file, path, name)) fail("{}: has no dataset {}", path.string(), name);
    return Dataset(check(H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT), path, "open " + name));
}

Shape shape_of(const Dataset& dataset, const std::filesystem::path& path) {
    const auto lock = lock_library();
    const Dataspace space(check(H5Dget_space(dataset.get()), path, "read a dataspace"));
    const int rank = check(H5Sget_simple_extent_ndims(space.get()), path, "read a rank");
    std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
    check(H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr), path, "read a shape");
    return {extents.begin(), extents.end()};
}

Dataspace select(const Dataset& dataset, const std::filesystem::path& path, const Shape& start, const Shape& count) {
    const auto lock = lock_library();
    Dataspace space(check(H5Dget_space(dataset.get()), path, "read a dataspace"));
    const auto from = to_extents(start);
    const auto extents = to_extents(count);
    check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, from.data(), nullptr, extents.data(), nullptr), path,
          "select " + to_string(count) + " from " + to_string(start));
    return space;
}

Dataspace make_dataspace(const Shape& shape) {
    const auto lock = lock_library();
    const auto extents = to_extents(shape);
    const hid_t id = shape.empty() ? H5Screate(H5S_SCALAR)
                                   : H5Screate_simple(static_cast<int>(shape.size()), extents.data(), nullptr);
    if (id < 0) fail("cannot make an HDF5 dataspace of shape {} ({})", to_string(shape), take_error());
    return Dataspace(id);
}

PropertyList untimed_dataset(const std::filesystem::path& path) {
    const auto lock = lock_library();
    PropertyList creation(check(H5Pcreate(H5P_DATASET_CREATE), path, "set up a dataset"));
    check(H5Pset_obj_track_times(creation.get(), false), path, "set up a dataset");
    return creation;
}

Datatype make_bfloat16_type() {
    const auto lock = lock_library();
    Datatype type(H5Tcopy(H5T_IEEE_F32LE));
    // In this order: each call must leave a type that is valid by itself.
    if (!type || H5Tset_fields(type.get(), 15, 7, 8, 0, 7) < 0 || H5Tset_size(type.get(), 2) < 0 ||
        H5Tset_ebias(type.get(), 127) < 0) {
        fail("cannot make the HDF5 type bfloat16 ({})", take_error());
    }
    return type;
}

void write_attribute(const File& file, const std::filesystem::path& path, const std::string& name,
                     const std::string& value) {
    const auto lock = lock_library();
    const std::string action = "write the attribute " + name;
    const Datatype type(check(H5Tcopy(H5T_C_S1), path, action));
    check(H5Tset_size(type.get(), value.size() + 1), path, action);
    check(H5Tset_cset(type.get(), H5T_CSET_UTF8), path, action);
    const Dataspace space = make_dataspace({});
    const Attribute attribute(
        check(H5Acreate2(file.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), path, action));
    check(H5Awrite(attribute.get(), type.get(), value.c_str()), path, action);
}

void write_attribute(const File& file, const std::filesystem::path& path, const std::string& name, std::int64_t value) {
    const auto lock = lock_library();
    const std::string action = "write the attribute " + name;
    const Dataspace space = make_dataspace({});
    const Attribute attribute(check(
        H5Acreate2(file.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), path, action));
    check(H5Awrite(attribute.get(), H5T_NATIVE_INT64, &value), path, action);
}

std::string read_string_attribute(const File& file, const std::filesystem::path& path, const std::string& name) {
    const auto lock = lock_library();
    const std::string action = "read the attribute " + name;
    const Attribute attribute = open_attribute(file, path, name);
    const Datatype type(check(H5Aget_type(attribute.get()), path, action));
    const Dataspace space(check(H5Aget_space(attribute.get()), path, action));
    if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 ||
        H5Sget_simple_extent_npoints(space.get()) != 1) {
        fail("{}: the attribute {} is not one string of fixed length", path.string(), name);
    }
    std::vector<char> text(H5Tget_size(type.get()) + 1, '\0');
    check(H5Aread(attribute.get(), type.get(), text.data()), path, action);
    return text.data();
}

std::int64_t read_int_attribute(const File& file, const std::filesystem::path& path, const std::string& name) {
    const auto lock = lock_library();
    const std::string action = "read the attribute " + name;
    const Attribute attribute = open_attribute(file, path, name);
    const Datatype type(check(H5Aget_type(attribute.get()), path, action));
    const Dataspace space(check(H5Aget_space(attribute.get()), path, action));
    if (H5Tget_class(type.get()) != H5T_INTEGER || H5Sget_simple_extent_npoints(space.get()) != 1) {
        fail("{}: the attribute {} is not one integer", path.string(), name);
    }
    std::int64_t value = 0;
    check(H5Aread(attribute.get(), H5T_NATIVE_INT64, &value), path, action);
    return value;
}

} // namespace lolcats::io::hdf5
