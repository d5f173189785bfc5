#pragma once
/// Frozen weights that several ranks load alike: the replicas of a pipeline stage, or the ranks of one block.
#include "src/comm/array_communicator.hpp"
#include "src/stages/run_input.hpp"

#include <memory>
#include <optional>
#include <vector>

namespace lolcats {

/// The first rank of the group reads, so that the file system gives each byte once.
class WeightBroadcast final : public WeightSharing {
public:
    explicit WeightBroadcast(ArrayCommunicator& group) : group_(group) {}

    [[nodiscard]] bool is_reader() const override { return group_.rank() == 0; }
    void hand_out(void* array, std::size_t bytes) override;
    void finish() override;

private:
    ArrayCommunicator& group_;
    std::vector<std::unique_ptr<Transfer>> under_way_;
};

/// As asked with --weights. By default each rank reads for itself on one node without GPUs, where what one has read is
/// in the page cache for all; one reads for all where they are on several nodes, or have GPUs, which are nearer to each
/// other than to the files.
class ReplicaWeights {
public:
    /// Collective.
    ReplicaWeights(const Options& options, const RunInput& input, ArrayCommunicator& group);

    [[nodiscard]] WeightSource source() { return {checkpoint_, broadcast_ ? &*broadcast_ : nullptr}; }

private:
    const io::Checkpoint& checkpoint_;
    std::optional<WeightBroadcast> broadcast_;
};

} // namespace lolcats
