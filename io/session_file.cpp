#include "io/session_file.hpp"

#include "io/checkpoint.hpp"
#include "io/trainer_state.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {

SessionWriter::SessionWriter(const std::filesystem::path& path, const SessionIdentity& identity, std::int64_t texts,
                             const std::vector<SessionArray>& arrays)
    : file_(path), positions_(texts), pending_(texts) {
    file_.write_attribute("format_version", std::int64_t{session_format_version});
    file_.write_attribute("model_identity", identity.model);
    file_.write_attribute("settings", identity.settings);
    file_.write_attribute("run_deck", identity.run_deck);
    for (const auto& array : arrays) {
        Shape shape = array.shape;
        shape.insert(shape.begin(), texts);
        file_.create(array.name, shape, DType::f32);
    }
}

void SessionWriter::write(std::int64_t text, const std::string& name, const float* values) {
    file_.write_rows(name, text, 1, values);
}

void SessionWriter::place(std::int64_t text, const SessionPlace& place) {
    positions_.at(text) = static_cast<double>(place.position);
    pending_.at(text) = place.pending;
}

void SessionWriter::close() {
    const Shape shape{static_cast<std::int64_t>(positions_.size())};
    file_.write("positions", shape, positions_.data());
    file_.write("pending", shape, pending_.data());
    file_.close();
}

SessionReader::SessionReader(const std::filesystem::path& path, const SessionIdentity& identity) : path_(path) {
    const auto lock = hdf5::lock_library();
    file_ = hdf5::open_read_only(path);
    const auto text = [&](const char* key) { return hdf5::read_string_attribute(file_, path, key); };
    const auto version = hdf5::read_int_attribute(file_, path, "format_version");
    if (version != session_format_version)
        fail("{}: has format version {}; this program reads {}: begin the session anew", path.string(), version,
             session_format_version);
    const TrainingIdentity found{text("model_identity"), "", text("settings"), ""};
    if (const auto other = difference(found, {identity.model, "", identity.settings, ""}); !other.empty())
        fail("{}: is the state of another session: {}; give the options it was saved with, or begin anew",
             path.string(), other);
    const auto positions = read_array(path, "positions");
    const auto pending = read_array(path, "pending");
    if (positions.empty() || positions.size() != pending.size())
        fail("{}: its positions and pending tokens do not belong together; begin the session anew", path.string());
    for (std::size_t i = 0; i < positions.size(); ++i) {
        if (!(positions[i] >= 0 && positions[i] < 1e9 && pending[i] >= 0 && pending[i] < 1e9))
            fail("{}: text {} stands nowhere (position {}, pending token {}); begin the session anew", path.string(), i,
                 positions[i], pending[i]);
        places_.push_back({static_cast<std::int64_t>(positions[i]), static_cast<std::int32_t>(pending[i])});
    }
}

void SessionReader::read(std::int64_t text, const SessionArray& array, float* out) const {
    const auto lock = hdf5::lock_library();
    const auto dataset = hdf5::open_dataset(file_, path_, array.name);
    Shape whole = array.shape;
    whole.insert(whole.begin(), texts());
    if (const Shape found = hdf5::shape_of(dataset, path_); found != whole)
        fail("{}: {} has shape {}, not {}; begin the session anew", path_.string(), array.name, to_string(found),
             to_string(whole));
    Shape start(whole.size(), 0);
    start[0] = text;
    whole[0] = 1;
    const auto space = hdf5::select(dataset, path_, start, whole);
    const auto memory = hdf5::make_dataspace(whole);
    hdf5::check_read(H5Dread(dataset.get(), H5T_NATIVE_FLOAT, memory.get(), space.get(), H5P_DEFAULT, out), path_,
                     array.name);
    if (!all_finite(out, static_cast<std::size_t>(element_count(array.shape, array.name))))
        fail("{}: {} holds values that are not finite; begin the session anew", path_.string(), array.name);
}

} // namespace lolcats::io
