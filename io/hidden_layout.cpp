#include "io/hidden_layout.hpp"

#include "io/checkpoint.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace hidden_layout {

using std::filesystem::path;

namespace {

DType stored_dtype(const hdf5::Dataset& states, const path& file) {
    const hdf5::Datatype type(hdf5::check(H5Dget_type(states.get()), file, "read the type of the states"));
    for (const DType dtype : {DType::bf16, DType::f32}) {
        if (H5Tequal(type.get(), element_type(dtype).get()) > 0) return dtype;
    }
    fail("{}: its states are neither bfloat16 nor float32", file.string());
}

void check_vector(const hdf5::File& file, const path& name, const char* dataset, std::int64_t sequences) {
    const Shape shape = hdf5::shape_of(hdf5::open_dataset(file, name, dataset), name);
    if (shape != Shape{sequences}) {
        fail("{}: {} has shape {}, not [{}]", name.string(), dataset, to_string(shape), sequences);
    }
}

void create_dataset(const hdf5::File& file, const path& name, const char* dataset, hid_t type, const Shape& shape,
                    const Shape& chunk) {
    const std::string action = std::string("create ") + dataset;
    const auto creation = hdf5::untimed_dataset(name);
    hdf5::check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), name, action);
    if (!chunk.empty()) {
        const std::vector<hsize_t> extents(chunk.begin(), chunk.end());
        hdf5::check(H5Pset_chunk(creation.get(), static_cast<int>(extents.size()), extents.data()), name, action);
        hdf5::check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), name, action);
    }
    const auto space = hdf5::make_dataspace(shape);
    const hdf5::Dataset created(hdf5::check(
        H5Dcreate2(file.get(), dataset, type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), name, action));
}

} // namespace

void check_info(const HiddenStoreInfo& info, const path& file) {
    if (info.sequences < 1 || info.length < 1 || info.width < 1) {
        fail("{}: a store of shape [{}, {}, {}] was asked for", file.string(), info.sequences, info.length, info.width);
    }
    if (info.dtype != DType::f32 && info.dtype != DType::bf16) {
        fail("{}: hidden states are stored as F32 or BF16, not {}", file.string(), name_of(info.dtype));
    }
    element_count({info.sequences, info.length, info.width, std::int64_t{4}}, file.string());
}

void check_sequence(std::int64_t sequence, const HiddenStoreInfo& info, const path& file) {
    if (sequence < 0 || sequence >= info.sequences) {
        fail("{}: sequence {} was asked for, but it has {}", file.string(), sequence, info.sequences);
    }
}

std::int64_t chunk_rows(const HiddenStoreInfo& info) {
    constexpr std::int64_t largest = std::int64_t{512} << 20;
    const auto row_bytes = info.width * static_cast<std::int64_t>(size_of(info.dtype));
    std::int64_t parts = 1;
    while (parts < info.length && (info.length % parts != 0 || info.length / parts * row_bytes > largest)) ++parts;
    return info.length / parts;
}

hdf5::Datatype element_type(DType dtype) {
    if (dtype == DType::bf16) return hdf5::make_bfloat16_type();
    return hdf5::Datatype(hdf5::check(H5Tcopy(H5T_IEEE_F32LE), path("float32"), "copy a type"));
}

std::string difference(const HiddenStoreInfo& found, const HiddenStoreInfo& wanted) {
    const auto differ = [](const char* what, const auto& is, const auto& should) {
        return is == should ? std::string() : fmt::format("its {} is {}, not {}", what, is, should);
    };
    for (const auto& text :
         {differ("number of sequences", found.sequences, wanted.sequences),
          differ("sequence length", found.length, wanted.length), differ("width", found.width, wanted.width),
          differ("element type", name_of(found.dtype), name_of(wanted.dtype)),
          differ("dtype of weights", found.weights_dtype, wanted.weights_dtype),
          differ("gemm", found.gemm, wanted.gemm), differ("block", found.block, wanted.block),
          differ("layer", found.layer, wanted.layer), model_difference(found.model_identity, wanted.model_identity),
          differ("token identity", found.tokens_identity, wanted.tokens_identity)}) {
        if (!text.empty()) return text;
    }
    return {};
}

void lay_out(const hdf5::File& file, const path& name, const HiddenStoreInfo& info) {
    // Not for later use: a committed type belongs to the file, and the file cannot be closed while one is open.
    const auto stored_type = element_type(info.dtype);
    if (info.dtype == DType::bf16) {
        hdf5::check(H5Tcommit2(file.get(), "/bfloat16", stored_type.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), name,
                    "name the type bfloat16");
    }
    const Shape shape{info.sequences, info.length, info.width};
    create_dataset(file, name, states_name, stored_type.get(), shape, {1, chunk_rows(info), info.width});
    create_dataset(file, name, checksums_name, H5T_STD_U64LE, {info.sequences}, {});
    create_dataset(file, name, marks_name, H5T_STD_U8LE, {info.sequences}, {});
    hdf5::write_attribute(file, name, "format_version", std::int64_t{hidden_store_format_version});
    hdf5::write_attribute(file, name, "model_identity", info.model_identity);
    hdf5::write_attribute(file, name, "tokens_identity", info.tokens_identity);
    hdf5::write_attribute(file, name, "layer", std::int64_t{info.layer});
    hdf5::write_attribute(file, name, "block", std::int64_t{info.block});
    hdf5::write_attribute(file, name, "dtype", info.weights_dtype);
    hdf5::write_attribute(file, name, "gemm", info.gemm);
    hdf5::write_attribute(file, name, "run_deck", info.run_deck);
}

HiddenStoreInfo read_info(const hdf5::File& file, const path& name) {
    const auto version = hdf5::read_int_attribute(file, name, "format_version");
    if (version != hidden_store_format_version) {
        throw OtherFormat(fmt::format("{}: has format version {}; this program reads {}", name.string(), version,
                                      hidden_store_format_version));
    }
    const auto states = hdf5::open_dataset(file, name, states_name);
    const Shape shape = hdf5::shape_of(states, name);
    if (shape.size() != 3) fail("{}: {} has shape {}, not [n, T, D]", name.string(), states_name, to_string(shape));
    check_vector(file, name, checksums_name, shape[0]);
    check_vector(file, name, marks_name, shape[0]);
    HiddenStoreInfo info{shape[0], shape[1], shape[2], stored_dtype(states, name), 0, 0, {}, {}, {}, {}, {}};
    info.block = static_cast<int>(hdf5::read_int_attribute(file, name, "block"));
    info.layer = static_cast<int>(hdf5::read_int_attribute(file, name, "layer"));
    info.model_identity = hdf5::read_string_attribute(file, name, "model_identity");
    info.tokens_identity = hdf5::read_string_attribute(file, name, "tokens_identity");
    info.weights_dtype = hdf5::read_string_attribute(file, name, "dtype");
    info.gemm = hdf5::read_string_attribute(file, name, "gemm");
    info.run_deck = hdf5::read_string_attribute(file, name, "run_deck");
    check_info(info, name);
    return info;
}

} // namespace hidden_layout

HiddenStoreInfo read_hidden_store_info(const std::filesystem::path& file) {
    const auto lock = hdf5::lock_library();
    return hidden_layout::read_info(hdf5::open_read_only(file), file);
}

} // namespace lolcats::io
