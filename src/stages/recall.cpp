#include "src/stages/recall.hpp"

#include "io/token_store.hpp"

#include <nlohmann/json.hpp>

namespace lolcats {

namespace {

double share(std::int64_t matched, std::int64_t spans) {
    return static_cast<double>(matched) / static_cast<double>(spans);
}

} // namespace

void Recall::add(const std::vector<std::int32_t>& labels, const std::vector<std::int32_t>& distances,
                 const std::int32_t* predicted) {
    bool in_span = false;
    bool matched = false;
    std::int32_t distance = 0;
    for (std::size_t t = 1; t < labels.size(); ++t) {
        const bool labelled = labels[t] != io::ignored_label;
        if (in_span && !labelled) close(matched, distance);
        if (labelled && !in_span) distance = distances.empty() ? 0 : distances[t];
        if (labelled) matched = (!in_span || matched) && predicted[t - 1] == labels[t];
        in_span = labelled;
    }
    if (in_span) close(matched, distance);
}

void Recall::close(bool matched, std::int32_t distance) {
    const std::int64_t hit = matched ? 1 : 0;
    ++spans_;
    matched_ += hit;
    if (distance <= 0) return;
    int range = 0;
    while (distance > window_ << range) ++range;
    ++range_spans_[range];
    range_matched_[range] += hit;
}

void Recall::sum(const Communicator& world) {
    world.sum(&spans_, 1);
    world.sum(&matched_, 1);
    world.sum(range_spans_.data(), range_spans_.size());
    world.sum(range_matched_.data(), range_matched_.size());
}

double Recall::exact_match() const {
    return share(matched_, spans_);
}

nlohmann::ordered_json Recall::by_distance() const {
    auto list = nlohmann::ordered_json::array();
    for (int i = 0; i < ranges; ++i)
        if (range_spans_[i] > 0)
            list.push_back({{"up_to", window_ << i},
                            {"spans", range_spans_[i]},
                            {"exact_match", share(range_matched_[i], range_spans_[i])}});
    return list;
}

} // namespace lolcats
