#pragma once
/// Checkpoints of a training: everything that a bit-exact resume needs, stored by block of layers, not by rank.
///
///     STATE/step_00000120/block_03.h5    /parameters/NAME, /first_moments/NAME, /second_moments/NAME, f32;
///                                        /best_parameters/NAME, f32, if an evaluation has kept some;
///                                        /progress/NAME, f64 scalars, in the first part
///                                        attributes of /: format_version, step, model_identity, tokens_identity,
///                                        settings (JSON), run_deck (JSON)
///     STATE/step_00000120/complete.json  {format_version, step, parts: {FILE: {bytes, xxh3}}}, written last
///
/// A checkpoint is prepared in a directory aside, synced and renamed as a whole.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/hdf5.hpp"

namespace lolcats::io {

inline constexpr int trainer_state_format_version = 1;

/// What a training is of. Two that agree in all but run_deck go through the same numbers.
struct TrainingIdentity {
    std::string model;
    std::string tokens;
    std::string settings; ///< JSON object of what the numbers depend on
    std::string run_deck; ///< all settings and the git hash of the run that wrote it; no part of the identity
};

/// The first difference between two trainings, as text that names it; empty if there is none.
std::string difference(const TrainingIdentity& found, const TrainingIdentity& wanted);

using ProgressNumbers = std::map<std::string, double>;

struct StateArray {
    std::string role; ///< group: parameters, first_moments, second_moments or best_parameters
    std::string name;
    Shape shape;
    std::vector<float> values;
};

/// Writes one part. `numbers` is empty for all parts but the first.
void write_state_part(const std::filesystem::path& path, std::int64_t step, const TrainingIdentity& identity,
                      const std::vector<StateArray>& arrays, const ProgressNumbers& numbers);

/// The checkpoints in one directory. Used by one process at a time, except begin()'s result.
class CheckpointDirectory {
public:
    explicit CheckpointDirectory(std::filesystem::path path) : path_(std::move(path)) {}

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::filesystem::path of_step(std::int64_t step) const;

    /// An empty directory aside for the parts of a checkpoint.
    [[nodiscard]] std::filesystem::path begin(std::int64_t step) const;
    /// Marks the parts in `aside` as complete, gives them their place and removes all but the `keep` newest, which this
    /// one is among: those of later steps go, as the run began from an earlier one.
    void publish(const std::filesystem::path& aside, std::int64_t step, int keep) const;

    /// Steps of the complete checkpoints, newest first.
    [[nodiscard]] std::vector<std::int64_t> steps() const;
    /// Files of a checkpoint, the part with the progress first, all checked against size and hash: an Error names the
    /// one that is damaged or missing.
    [[nodiscard]] std::vector<std::filesystem::path> parts(std::int64_t step) const;

    /// Removes the directory and all checkpoints in it.
    void remove() const;

private:
    std::filesystem::path path_;
};

/// Reads the parts of a checkpoint as one.
class StateReader {
public:
    explicit StateReader(const std::vector<std::filesystem::path>& parts);

    [[nodiscard]] const TrainingIdentity& identity() const { return identity_; }
    [[nodiscard]] ProgressNumbers numbers() const;
    [[nodiscard]] bool has(const std::string& role, const std::string& name) const;
    /// An array that is missing or of another shape is an Error.
    [[nodiscard]] std::vector<float> read(const std::string& role, const std::string& name, const Shape& shape) const;

private:
    struct Part {
        std::filesystem::path path;
        hdf5::File file;
    };
    [[nodiscard]] const Part* find(const std::string& dataset) const;

    std::vector<Part> parts_;
    TrainingIdentity identity_;
};

} // namespace lolcats::io
