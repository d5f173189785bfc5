#include "io/checkpoint.hpp"

#include <string_view>

#include "io/file.hpp"
#include "io/json.hpp"
#include "io/nearest_name.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";

bool holds_pytorch_weights(const std::filesystem::path& directory) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("pytorch_model") && name.find(".bin") != std::string::npos) return true;
    }
    return false;
}

[[noreturn]] void fail_without_weights(const std::filesystem::path& directory) {
    if (holds_pytorch_weights(directory)) {
        fail("{}: has only pytorch_model.bin weights; convert them to safetensors (save_pretrained with "
             "safe_serialization=True)",
             directory.string());
    }
    fail("{}: has neither {} nor {}: it is no Hugging Face model directory, or its download is incomplete; fetch it "
         "again",
         directory.string(), single_file, index_file);
}

/// Shards lie beside their index: a name with a directory in it could read any file of the machine.
void check_shard_name(const std::string& shard, const std::filesystem::path& index) {
    if (shard.empty() || shard == "." || shard == ".." || shard.find('/') != std::string::npos ||
        shard.find('\0') != std::string::npos) {
        fail("{}: names the shard \"{}\", which is not a plain file name; fetch the index again", index.string(),
             printable(shard));
    }
}

} // namespace

Checkpoint::Checkpoint(const std::filesystem::path& directory) : directory_(directory) {
    std::error_code error;
    if (!std::filesystem::is_directory(directory, error)) {
        fail("{}: is not a directory; give the Hugging Face directory of the model", directory.string());
    }
    if (std::filesystem::exists(directory / single_file, error)) return;
    if (!std::filesystem::exists(directory / index_file, error)) fail_without_weights(directory);
    read_index(directory / index_file);
}

void Checkpoint::read_index(const std::filesystem::path& index) {
    using nlohmann::json;
    const std::string text = read_file(index);
    try {
        const json parsed = parse_json(text, index.string(), "fetch it again");
        weight_map_ = parsed.at("weight_map").get<std::map<std::string, std::string>>();
    } catch (const json::exception& error) {
        fail("{}: is not an index with a weight_map of names ({}); fetch it again", index.string(),
             printable(error.what()));
    }
    if (weight_map_.empty()) fail("{}: its weight_map is empty; fetch it again", index.string());
    for (const auto& [tensor, shard] : weight_map_) check_shard_name(shard, index);
}

const SafetensorsFile& Checkpoint::open(const std::string& file) const {
    const std::scoped_lock lock(mutex_);
    auto& opened = files_[file];
    if (!opened) opened = std::make_unique<SafetensorsFile>(directory_ / file);
    return *opened;
}

const SafetensorsFile& Checkpoint::file_with(const std::string& name) const {
    if (weight_map_.empty()) return open(single_file);
    const auto found = weight_map_.find(name);
    if (found == weight_map_.end()) {
        fail("{}: has no tensor {}; the nearest name in it is \"{}\"", (directory_ / index_file).string(),
             printable(name), printable(nearest_key(name, weight_map_)));
    }
    return open(found->second);
}

bool Checkpoint::contains(const std::string& name) const {
    return weight_map_.empty() ? open(single_file).contains(name) : weight_map_.contains(name);
}

const TensorInfo& Checkpoint::info(const std::string& name) const {
    return file_with(name).info(name);
}

std::vector<std::string> Checkpoint::names() const {
    std::vector<std::string> names;
    const auto add = [&](const auto& tensors) {
        for (const auto& [name, value] : tensors) names.push_back(name);
    };
    weight_map_.empty() ? add(open(single_file).tensors()) : add(weight_map_);
    return names;
}

std::uint64_t Checkpoint::fingerprint(const std::string& name) const {
    return file_with(name).fingerprint(name);
}

std::string Checkpoint::identity(std::span<const std::int64_t> fingerprints) const {
    std::string text = read_file(directory_ / "config.json");
    for (std::size_t i = 0; const auto& name : names())
        text += fmt::format("\n{} {}", name, to_hex(static_cast<std::uint64_t>(fingerprints[i++])));
    return to_hex(hash64(std::as_bytes(std::span(text))));
}

std::string model_difference(const std::string& found, const std::string& wanted) {
    if (found == wanted) return {};
    return fmt::format("its model is another one (identity {}, not {})", printable(found), wanted);
}

} // namespace lolcats::io
