#include <unistd.h>

#include <array>

#include "io/file.hpp"
#include "io/hidden_layout.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {

using std::filesystem::path;
using namespace hidden_layout;

namespace {

/// Layers of the block files, each of which is checked against what they have in common.
std::vector<std::int32_t> layers_of(const std::vector<path>& blocks, const HiddenStoreInfo& shape) {
    std::vector<std::int32_t> layers;
    for (const path& file : blocks) {
        const HiddenStoreInfo found = read_hidden_store_info(file);
        HiddenStoreInfo wanted = found;
        wanted.sequences = shape.sequences;
        wanted.length = shape.length;
        wanted.width = shape.width;
        wanted.dtype = shape.dtype;
        wanted.weights_dtype = shape.weights_dtype;
        wanted.gemm = shape.gemm;
        if (const auto text = difference(found, wanted); !text.empty()) fail("{}: {}; {}", file.string(), text, rerun);
        layers.push_back(found.layer);
    }
    return layers;
}

/// Layout that maps block i of the virtual dataset to file i; a file that is not there reads as NaN.
hdf5::PropertyList virtual_layout(const path& all, const std::vector<path>& blocks, const hdf5::Dataspace& whole,
                                  const HiddenStoreInfo& shape, hid_t type) {
    hdf5::PropertyList creation(hdf5::untimed_dataset(all));
    const BFloat16 narrow_nan{0x7fc0};
    const float wide_nan = to_float(narrow_nan);
    const bool narrow = shape.dtype == DType::bf16;
    const void* nan = narrow ? static_cast<const void*>(&narrow_nan) : &wide_nan;
    hdf5::check(H5Pset_fill_value(creation.get(), type, nan), all, "set its fill value");
    const auto source = hdf5::make_dataspace({shape.sequences, shape.length, shape.width});
    const std::array<hsize_t, 4> count{1, static_cast<hsize_t>(shape.sequences), static_cast<hsize_t>(shape.length),
                                       static_cast<hsize_t>(shape.width)};
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const std::array<hsize_t, 4> start{i, 0, 0, 0};
        hdf5::check(H5Sselect_hyperslab(whole.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), all,
                    "select a block");
        const path relative = std::filesystem::absolute(blocks[i]).lexically_normal().lexically_relative(
            std::filesystem::absolute(all).lexically_normal().parent_path());
        hdf5::check(H5Pset_virtual(creation.get(), whole.get(), relative.c_str(), states_name, source.get()), all,
                    "map a block");
    }
    return creation;
}

void write_virtual_file(const path& temporary, const path& all, const std::vector<path>& blocks,
                        const HiddenStoreInfo& shape, const std::vector<std::int32_t>& layers) {
    const auto file_count = static_cast<std::int64_t>(blocks.size());
    hdf5::File file(
        hdf5::check(H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), all, "create it"));
    const auto type = element_type(shape.dtype);
    const auto whole = hdf5::make_dataspace({file_count, shape.sequences, shape.length, shape.width});
    const auto layout = virtual_layout(all, blocks, whole, shape, type.get());
    hdf5::check(H5Sselect_all(whole.get()), all, "select everything");
    hdf5::Dataset states(hdf5::check(
        H5Dcreate2(file.get(), states_name, type.get(), whole.get(), H5P_DEFAULT, layout.get(), H5P_DEFAULT), all,
        "create the virtual dataset"));
    hdf5::check(states.close(), all, "finish the virtual dataset");
    const auto vector = hdf5::make_dataspace({file_count});
    const auto untimed = hdf5::untimed_dataset(all);
    hdf5::Dataset numbers(hdf5::check(
        H5Dcreate2(file.get(), "/layers", H5T_STD_I32LE, vector.get(), H5P_DEFAULT, untimed.get(), H5P_DEFAULT), all,
        "create /layers"));
    hdf5::check(H5Dwrite(numbers.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, layers.data()), all,
                "write /layers");
    hdf5::check(numbers.close(), all, "finish /layers");
    hdf5::write_attribute(file, all, "format_version", std::int64_t{hidden_store_format_version});
    hdf5::write_attribute(file, all, "model_identity", shape.model_identity);
    hdf5::write_attribute(file, all, "tokens_identity", shape.tokens_identity);
    hdf5::write_attribute(file, all, "dtype", shape.weights_dtype);
    hdf5::write_attribute(file, all, "gemm", shape.gemm);
    if (std::string reason; !hdf5::flush(file, reason)) {
        hdf5::discard_writes(file);
        fail("{}: cannot write it ({}){}; free space, then {}", all.string(), reason, free_space_hint(all), rerun);
    }
    hdf5::check(file.close(), all, "close it");
}

} // namespace

void write_virtual_dataset(const path& all, const std::vector<path>& blocks, const HiddenStoreInfo& shape) {
    const auto lock = hdf5::lock_library();
    check_info(shape, all);
    if (blocks.empty()) fail("{}: there are no block files to show in it", all.string());
    const auto layers = layers_of(blocks, shape);
    const path temporary = temporary_name(all);
    try {
        write_virtual_file(temporary, all, blocks, shape, layers);
        publish_file(temporary, all);
    } catch (...) {
        ::unlink(temporary.c_str());
        throw;
    }
}

} // namespace lolcats::io
