#pragma once
/// The weights of a Hugging Face model directory: model.safetensors, or shards behind model.safetensors.index.json.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.hpp"

namespace lolcats::io {

/// Shards are opened when a tensor of theirs is first asked for, so a rank opens only the files it reads. May be used
/// from several threads at once.
class Checkpoint {
public:
    /// Throws Error if the directory holds no safetensors weights; the message says what it holds instead.
    explicit Checkpoint(const std::filesystem::path& directory);

    [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
    [[nodiscard]] bool contains(const std::string& name) const;
    /// An Error names the directory, the missing tensor and the nearest name there is.
    [[nodiscard]] const TensorInfo& info(const std::string& name) const;

    /// As SafetensorsFile::read and read_rows.
    template <class T>
    void read(const std::string& name, const Shape& expected, T* out) const {
        file_with(name).read(name, expected, out);
    }
    template <class T>
    void read_rows(const std::string& name, const Shape& expected, std::int64_t first, std::int64_t count,
                   T* out) const {
        file_with(name).read_rows(name, expected, first, count, out);
    }

    /// Names of all tensors, ascending.
    [[nodiscard]] std::vector<std::string> names() const;
    /// As SafetensorsFile::fingerprint.
    [[nodiscard]] std::uint64_t fingerprint(const std::string& name) const;
    /// Text that tells this model from others, by config.json and the fingerprints of all tensors in the order of
    /// names(), however they are spread over files. As fingerprints are of samples, it tells trainings of the same
    /// shape apart, which change all of a tensor, but may not see that single values of a large tensor were changed.
    [[nodiscard]] std::string identity(std::span<const std::int64_t> fingerprints) const;

private:
    [[nodiscard]] const SafetensorsFile& file_with(const std::string& name) const;
    [[nodiscard]] const SafetensorsFile& open(const std::string& file) const;
    void read_index(const std::filesystem::path& index);

    std::filesystem::path directory_;
    std::map<std::string, std::string> weight_map_; ///< tensor to shard file; empty for a single file
    mutable std::mutex mutex_;                      ///< guards files_
    mutable std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
};

/// How two texts of Checkpoint::identity() differ, as the end of an error; empty if they do not.
std::string model_difference(const std::string& found, const std::string& wanted);

} // namespace lolcats::io
