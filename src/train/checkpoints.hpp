#pragma once
/// When a training writes its state, and how it goes on from it.
#include "io/trainer_state.hpp"
#include "lolcats/options.hpp"
#include "src/comm/mesh.hpp"
#include "src/interrupt.hpp"
#include "src/train/metrics_log.hpp"
#include "src/train/parameters.hpp"
#include "src/train/progress.hpp"

#include <chrono>
#include <filesystem>

namespace lolcats {

/// Removes the checkpoints in `directory` if they are of this training, whose result is written. A run that was killed
/// just after that leaves them.
void remove_checkpoints(const std::filesystem::path& directory, const io::TrainingIdentity& identity);

/// The checkpoints of one training: a block's in stage 1, the whole model's in stage 2. Parts hold blocks of layers, so
/// that any number of ranks can go on from them.
class Checkpoints {
public:
    struct Place {
        std::filesystem::path directory;
        io::TrainingIdentity identity;
        BlockLayout layout;
        bool writes; ///< this rank's parameters go to the files; others have the same ones
    };
    /// `group`: the ranks of this training, which work in step.
    Checkpoints(const Options& options, Place place, const Communicator& group, Interrupt& interrupt);

    /// Goes on from the newest checkpoint that is whole; one that is damaged is passed over with a warning. Returns the
    /// bytes of the log that belong to it, 0 if training starts at the beginning. A checkpoint of another training is
    /// an Error, as is a state of which nothing is whole. Collective.
    std::int64_t resume(ParameterSet& parameters, Progress& progress);

    /// Before a step: writes a checkpoint if one is due or the run has to stop. False: stop. `log` is rank 0's. A
    /// checkpoint that cannot be written is a warning, and an Error where the run has to stop. Collective.
    bool go_on(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log);
    /// The same where it is settled whether the run `stops`. Collective.
    void before_step(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log, bool stops);

    /// The training is finished, and its result is written: nothing will go on from its checkpoints, which are removed.
    /// Says what they cost. Rank 0 only.
    void finish() const;

private:
    using Clock = std::chrono::steady_clock;
    struct Outcome {
        bool is_written;     ///< the same on all ranks
        std::string problem; ///< of this rank: each tells its own
    };

    [[nodiscard]] std::string choose() const;
    [[nodiscard]] bool is_due(int step) const;
    void save(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log, bool must);
    Outcome write_collectively(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log) const;
    void report(const std::string& problem, int step, bool must) const;
    void note_cost(Clock::time_point start);
    void write_parts(const std::filesystem::path& aside, const ParameterSet& parameters, const Progress& progress,
                     const MetricsLog* log) const;

    const Options& options_;
    Place place_;
    const Communicator& group_;
    Interrupt& interrupt_;
    io::CheckpointDirectory directory_;
    int last_step_ = -1; ///< of the newest checkpoint
    Clock::time_point last_time_ = Clock::now();
    double longest_seconds_; ///< that writing one took
    double all_seconds_ = 0;
    int count_ = 0;
    Clock::time_point start_ = Clock::now();
};

} // namespace lolcats
