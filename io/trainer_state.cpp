#include "io/trainer_state.hpp"

#include <algorithm>
#include <regex>
#include <set>

#include "io/array_file.hpp"
#include "io/checkpoint.hpp"
#include "io/fence.hpp"
#include "io/file.hpp"
#include "io/json.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

using nlohmann::json;
using Path = std::filesystem::path;

constexpr const char* mark = "complete.json";
constexpr const char* progress_group = "progress";

std::string settings_difference(const std::string& found, const std::string& wanted) {
    const json is = parse_json_or_discard(found);
    const json should = parse_json_or_discard(wanted);
    if (!is.is_object() || !should.is_object()) return found == wanted ? "" : "its settings are others";
    for (const auto& [key, value] : should.items()) {
        if (!is.contains(key)) return fmt::format("its setting {} is missing", key);
        if (is.at(key) != value) return fmt::format("its {} is {}, not {}", key, is.at(key).dump(), value.dump());
    }
    for (const auto& [key, value] : is.items())
        if (!should.contains(key)) return fmt::format("it has a setting {}", key);
    return {};
}

/// What `mark` says of one part, or the part's own size and hash.
json describe_part(const Path& file) {
    return {{"bytes", std::filesystem::file_size(file)}, {"xxh3", to_hex(hash_file(file))}};
}

TrainingIdentity read_identity(const hdf5::File& file, const Path& name) {
    const auto version = hdf5::read_int_attribute(file, name, "format_version");
    if (version != trainer_state_format_version)
        fail("{}: has format version {}; this program reads {}: give --fresh to train anew", name.string(), version,
             trainer_state_format_version);
    const auto text = [&](const char* key) { return hdf5::read_string_attribute(file, name, key); };
    return {text("model_identity"), text("tokens_identity"), text("settings"), text("run_deck")};
}

herr_t note_name(hid_t /*group*/, const char* name, const H5L_info_t* /*info*/, void* names) {
    static_cast<std::set<std::string>*>(names)->insert(name);
    return 0;
}

} // namespace

std::string difference(const TrainingIdentity& found, const TrainingIdentity& wanted) {
    if (auto text = model_difference(found.model, wanted.model); !text.empty()) return text;
    if (found.tokens != wanted.tokens)
        return fmt::format("its tokens are others (identity {}, not {})", found.tokens, wanted.tokens);
    return settings_difference(found.settings, wanted.settings);
}

void write_state_part(const Path& path, std::int64_t step, const TrainingIdentity& identity,
                      const std::vector<StateArray>& arrays, const ProgressNumbers& numbers) {
    ArrayFile file(path);
    file.write_attribute("format_version", std::int64_t{trainer_state_format_version});
    file.write_attribute("step", step);
    file.write_attribute("model_identity", identity.model);
    file.write_attribute("tokens_identity", identity.tokens);
    file.write_attribute("settings", identity.settings);
    file.write_attribute("run_deck", identity.run_deck);
    std::string group;
    for (const auto& array : arrays) {
        if (array.role != group) file.enter_group(group = array.role);
        file.write(array.name, array.shape, array.values.data());
    }
    if (!numbers.empty()) file.enter_group(progress_group);
    for (const auto& [name, value] : numbers) file.write(name, {}, &value);
    file.close();
}

Path CheckpointDirectory::of_step(std::int64_t step) const {
    return path_ / fmt::format("step_{:08}", step);
}

Path CheckpointDirectory::begin(std::int64_t step) const {
    const auto aside = temporary_name(of_step(step));
    remove_tree(aside);
    io::create_directories(aside);
    return aside;
}

void CheckpointDirectory::publish(const Path& aside, std::int64_t step, int keep) const {
    require_current_attempt();
    json parts;
    for (const auto& entry : std::filesystem::directory_iterator(aside))
        parts[entry.path().filename().string()] = describe_part(entry.path());
    const json content = {{"format_version", trainer_state_format_version}, {"step", step}, {"parts", parts}};
    write_file_atomically(aside / mark, content.dump(2) + "\n");
    const auto earlier = steps(); // not what a newer attempt adds meanwhile
    remove_tree(of_step(step));   // a damaged one that was passed over
    publish_file(aside, of_step(step));
    int kept = 1;
    for (const std::int64_t other : earlier) {
        if (other == step) continue;
        // Later ones are damaged, as this run began before them: they must not count as the newest.
        if (other < step && kept++ < keep) continue;
        require_current_attempt();
        remove_tree_at_once(of_step(other));
    }
}

std::vector<std::int64_t> CheckpointDirectory::steps() const {
    static const std::regex pattern(R"(step_(\d{8,18}))");
    std::vector<std::int64_t> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(path_, error)) {
        const std::string name = entry.path().filename().string();
        std::smatch number;
        if (std::regex_match(name, number, pattern)) found.push_back(std::stoll(number[1]));
    }
    std::sort(found.rbegin(), found.rend());
    return found;
}

std::vector<Path> CheckpointDirectory::parts(std::int64_t step) const {
    const Path directory = of_step(step);
    const json content = parse_json_or_discard(read_file(directory / mark));
    if (!content.is_object() || !content.contains("parts") || !content["parts"].is_object())
        fail("{}: is damaged", (directory / mark).string());
    std::vector<Path> files;
    for (const auto& [name, expected] : content["parts"].items()) { // sorted: the first part comes first
        const Path file = directory / name;
        std::error_code error;
        if (!std::filesystem::is_regular_file(file, error)) fail("{}: is missing", file.string());
        if (describe_part(file) != expected) fail("{}: does not match its checksum: it is damaged", file.string());
        files.push_back(file);
    }
    if (files.empty()) fail("{}: names no parts", (directory / mark).string());
    return files;
}

void CheckpointDirectory::remove() const {
    remove_tree_at_once(path_);
}

StateReader::StateReader(const std::vector<Path>& parts) {
    const auto lock = hdf5::lock_library();
    for (const Path& part : parts) parts_.push_back({part, hdf5::open_read_only(part)});
    identity_ = read_identity(parts_.front().file, parts_.front().path);
}

ProgressNumbers StateReader::numbers() const {
    const auto lock = hdf5::lock_library();
    const Part& first = parts_.front();
    const hdf5::Group group(
        hdf5::check(H5Gopen2(first.file.get(), progress_group, H5P_DEFAULT), first.path, "open /progress"));
    std::set<std::string> names;
    hdf5::check(H5Literate(group.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, note_name, &names), first.path,
                "list /progress");
    ProgressNumbers numbers;
    for (const auto& name : names)
        numbers[name] = read_array(first.path, std::string(progress_group) + "/" + name).at(0);
    return numbers;
}

const StateReader::Part* StateReader::find(const std::string& dataset) const {
    for (const Part& part : parts_)
        if (hdf5::has_dataset(part.file, part.path, dataset)) return &part;
    return nullptr;
}

bool StateReader::has(const std::string& role, const std::string& name) const {
    return find(role + "/" + name) != nullptr;
}

std::vector<float> StateReader::read(const std::string& role, const std::string& name, const Shape& shape) const {
    const auto lock = hdf5::lock_library();
    const std::string place = role + "/" + name;
    const Part* part = find(place);
    if (part == nullptr) fail("{}: has no {}", parts_.front().path.parent_path().string(), place);
    const auto dataset = hdf5::open_dataset(part->file, part->path, place);
    if (const Shape found = hdf5::shape_of(dataset, part->path); found != shape)
        fail("{}: {} has shape {}, not {}", part->path.string(), place, to_string(found), to_string(shape));
    std::vector<float> values(static_cast<std::size_t>(element_count(shape, place)));
    hdf5::check_read(H5Dread(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), part->path,
                     place);
    return values;
}

} // namespace lolcats::io
