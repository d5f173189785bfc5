#pragma once
/// Exact match of labelled spans, in all and by how far back stands what they repeat.
#include "src/comm/communicator.hpp"

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace lolcats {

class Recall {
public:
    /// Distances are told apart by doublings of `window`.
    explicit Recall(int window) : window_(window) {}

    /// Counts the runs of consecutive labelled tokens of a sequence that were predicted throughout. predicted[t] is for
    /// token t + 1. `distances` is one a token, of which a run's first counts, or empty.
    void add(const std::vector<std::int32_t>& labels, const std::vector<std::int32_t>& distances,
             const std::int32_t* predicted);
    /// Collective: the counts become those of all ranks.
    void sum(const Communicator& world);

    [[nodiscard]] std::int64_t spans() const { return spans_; }
    /// Share of the runs that matched.
    [[nodiscard]] double exact_match() const;
    /// [{"up_to": w 2^i, "spans", "exact_match"}] of the distances that occur, from the range before to `up_to`.
    [[nodiscard]] nlohmann::ordered_json by_distance() const;

private:
    static constexpr int ranges = 32;

    void close(bool matched, std::int32_t distance);

    std::int64_t window_;
    std::int64_t spans_ = 0;
    std::int64_t matched_ = 0;
    std::array<std::int64_t, ranges> range_spans_{};
    std::array<std::int64_t, ranges> range_matched_{};
};

} // namespace lolcats
