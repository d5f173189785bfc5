#include "src/stages/sampler.hpp"

#include "kernels/random.hpp"
#include "lolcats/error.hpp"

#include <algorithm>
#include <cmath>

namespace lolcats {

double Sampler::total_weight() const {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += candidate.weight;
    return total;
}

/// Brings the candidates that may be drawn to the front, the most likely first, and drops the others.
void Sampler::keep_likely() {
    const auto less_likely = [](const Candidate& a, const Candidate& b) {
        return a.weight != b.weight ? a.weight < b.weight : a.token > b.token;
    };
    const double everything = total_weight();
    std::make_heap(candidates_.begin(), candidates_.end(), less_likely);
    auto rest = candidates_.end();
    std::vector<Candidate>& kept = kept_;
    kept.clear();
    const auto keep_next = [&] {
        std::pop_heap(candidates_.begin(), rest, less_likely);
        kept.push_back(*--rest);
    };
    double wanted = top_p_ * everything;
    if (top_k_ > 0) {
        while (kept.size() < top_k_ && rest != candidates_.begin()) keep_next();
        wanted = 0;
        for (const Candidate& candidate : kept) wanted += top_p_ * candidate.weight;
    }
    double held = 0;
    std::size_t count = 0;
    while (count == 0 || held < wanted) {
        if (count == kept.size()) {
            if (top_k_ > 0 || rest == candidates_.begin()) break;
            keep_next();
        }
        held += kept[count++].weight;
    }
    kept.resize(count);
    std::swap(candidates_, kept_);
}

std::int32_t Sampler::choose(std::span<const float> logits, std::int64_t prompt, std::int64_t position) {
    const auto best = std::max_element(logits.begin(), logits.end());
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }))
        fail("prompt {}, position {}: the logits are not finite; look for values that are not in the model's weights "
             "and what is added to them",
             prompt, position);
    if (temperature_ == 0) return static_cast<std::int32_t>(best - logits.begin());
    candidates_.clear();
    for (std::size_t i = 0; i < logits.size(); ++i)
        candidates_.push_back(
            {std::exp((static_cast<double>(logits[i]) - *best) / temperature_), static_cast<std::int32_t>(i)});
    if (top_p_ < 1 || top_k_ > 0) keep_likely();
    const std::uint64_t bits =
        mix_bits(mix_bits(seed_ ^ mix_bits(static_cast<std::uint64_t>(prompt))) + static_cast<std::uint64_t>(position));
    double left = unit_interval(bits) * total_weight();
    for (const Candidate& candidate : candidates_) {
        left -= candidate.weight;
        if (left < 0) return candidate.token;
    }
    return candidates_.back().token; // rounding
}

} // namespace lolcats
