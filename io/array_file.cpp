#include "io/array_file.hpp"

#include <unistd.h>

#include <limits>

#include "io/file.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

hid_t file_type(DType dtype) {
    return dtype == DType::f64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE;
}

} // namespace

void ArrayFile::give_up(const std::string& action, const std::string& reason) {
    const std::string space = free_space_hint(path_);
    // Here and not in the destructor, which does not run where an error ends several ranks.
    abandon();
    fail("{}: cannot {} ({}){}; free space, look at the disk, or name a file elsewhere", path_.string(), action, reason,
         space);
}

template <class Result>
Result ArrayFile::check_written(Result result, const std::string& action) {
    if (result < 0) give_up(action, hdf5::take_error());
    return result;
}

ArrayFile::ArrayFile(const std::filesystem::path& path) : path_(path), temporary_(temporary_name(path)) {
    const auto lock = hdf5::lock_library();
    file_ =
        hdf5::File(check_written(H5Fcreate(temporary_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), "create it"));
}

ArrayFile::~ArrayFile() {
    if (file_) abandon();
}

void ArrayFile::abandon() noexcept {
    const auto lock = hdf5::lock_library();
    hdf5::discard_writes(file_);
    entries_.clear();
    file_.close();
    ::unlink(temporary_.c_str());
}

ArrayFile::Entry& ArrayFile::add(const std::string& name, const Shape& shape, DType dtype) {
    if (!file_) fail("{}: is already closed", path_.string());
    if (dtype != DType::f64 && dtype != DType::f32) fail("{}: {} must be F32 or F64", path_.string(), name);
    if (name.empty() || name == "." || name.find('/') != std::string::npos) {
        fail("{}: \"{}\" is no name for an array", path_.string(), printable(name));
    }
    const std::string place = group_ + name;
    if (entries_.contains(place)) fail("{}: {} is written twice", path_.string(), place);
    element_count(shape, path_.string() + ": " + name);
    const auto space = hdf5::make_dataspace(shape);
    const auto creation = hdf5::untimed_dataset(path_);
    const double unwritten = std::numeric_limits<double>::quiet_NaN();
    hdf5::check(H5Pset_fill_value(creation.get(), H5T_NATIVE_DOUBLE, &unwritten), path_, "set up " + name);
    hdf5::Dataset dataset(check_written(
        H5Dcreate2(file_.get(), place.c_str(), file_type(dtype), space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
        "create " + name));
    return entries_.emplace(place, Entry{std::move(dataset), shape}).first->second;
}

void ArrayFile::write_values(const std::string& name, const Shape& shape, DType dtype, const void* values) {
    const auto lock = hdf5::lock_library();
    const Entry& entry = add(name, shape, dtype);
    const hid_t memory = dtype == DType::f64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT;
    check_written(H5Dwrite(entry.dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), "write " + name);
}

void ArrayFile::write(const std::string& name, const Shape& shape, const double* values) {
    write_values(name, shape, DType::f64, values);
}

void ArrayFile::write(const std::string& name, const Shape& shape, const float* values) {
    write_values(name, shape, DType::f32, values);
}

void ArrayFile::enter_group(const std::string& name) {
    const auto lock = hdf5::lock_library();
    const hdf5::Group group(check_written(H5Gcreate2(file_.get(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                          "create the group " + name));
    group_ = name + "/";
}

void ArrayFile::write_attribute(const std::string& name, const std::string& value) {
    hdf5::write_attribute(file_, path_, name, value);
}

void ArrayFile::write_attribute(const std::string& name, std::int64_t value) {
    hdf5::write_attribute(file_, path_, name, value);
}

void ArrayFile::create(const std::string& name, const Shape& shape, DType dtype) {
    const auto lock = hdf5::lock_library();
    add(name, shape, dtype);
}

void ArrayFile::write_rows(const std::string& name, std::int64_t first_row, std::int64_t count, const float* values) {
    const auto lock = hdf5::lock_library();
    const auto found = entries_.find(group_ + name);
    if (found == entries_.end()) fail("{}: {} was not created", path_.string(), name);
    const auto& [dataset, shape] = found->second;
    if (shape.empty() || first_row < 0 || count < 0 || first_row > shape[0] - count) {
        fail("{}: rows [{}, {} + {}) do not fit into {} of shape {}", path_.string(), first_row, first_row, count, name,
             to_string(shape));
    }
    Shape start(shape.size(), 0);
    Shape extents = shape;
    start[0] = first_row;
    extents[0] = count;
    const auto space = hdf5::select(dataset, path_, start, extents);
    const auto memory = hdf5::make_dataspace(extents);
    check_written(H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, memory.get(), space.get(), H5P_DEFAULT, values),
                  "write rows of " + name);
}

void ArrayFile::close() {
    if (!file_) fail("{}: is already closed", path_.string());
    {
        const auto lock = hdf5::lock_library();
        std::string error;
        if (!hdf5::flush(file_, error)) give_up("write it to its end", error);
        entries_.clear();
        check_written(file_.close(), "close it");
    }
    try {
        publish_file(temporary_, path_);
    } catch (...) {
        ::unlink(temporary_.c_str());
        throw;
    }
}

std::vector<double> read_array(const std::filesystem::path& path, const std::string& dataset, Shape* shape) {
    const auto lock = hdf5::lock_library();
    const hdf5::File file = hdf5::open_read_only(path);
    const hdf5::Dataset source = hdf5::open_dataset(file, path, dataset);
    const hdf5::Datatype type(hdf5::check(H5Dget_type(source.get()), path, "read the type of " + dataset));
    if (const H5T_class_t kind = H5Tget_class(type.get()); kind != H5T_INTEGER && kind != H5T_FLOAT) {
        fail("{}: {} does not hold numbers", path.string(), dataset);
    }
    const Shape extents = hdf5::shape_of(source, path);
    std::vector<double> values(static_cast<std::size_t>(element_count(extents, path.string() + ": " + dataset)));
    hdf5::check_read(H5Dread(source.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), path,
                     dataset);
    if (shape != nullptr) *shape = extents;
    return values;
}

} // namespace lolcats::io
