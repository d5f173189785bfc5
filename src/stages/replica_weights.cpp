#include "src/stages/replica_weights.hpp"

namespace lolcats {

void WeightBroadcast::hand_out(void* array, std::size_t bytes) {
    under_way_.push_back(group_.broadcast(array, bytes, 0));
}

void WeightBroadcast::finish() {
    for (const auto& transfer : under_way_) transfer->wait();
    under_way_.clear();
}

ReplicaWeights::ReplicaWeights(const Options& options, const RunInput& input, ArrayCommunicator& group)
    : checkpoint_(input.checkpoint) {
    const bool is_one_node = group.control().split_by_node().size() == group.size();
    const bool shares = options.weights == "auto" ? !runs_on_host || !is_one_node : options.weights == "broadcast";
    if (shares && group.size() > 1) broadcast_.emplace(group);
}

} // namespace lolcats
