#pragma once
/// The choice of the next token from its logits.
#include "lolcats/options.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace lolcats {

/// With temperature 0 the most likely token, the first of equals; else a random one of the most likely top-k, and of
/// these the fewest that hold top-p of the probability. Random numbers are a hash of seed, prompt and position: a
/// prompt's text does not depend on what is generated beside it, nor on where a session was interrupted.
class Sampler {
public:
    explicit Sampler(const Options& options)
        : temperature_(options.temperature), top_p_(options.top_p), top_k_(static_cast<std::size_t>(options.top_k)),
          seed_(options.seed) {}

    /// `position` is that of the token chosen. Logits that are not finite are an Error.
    std::int32_t choose(std::span<const float> logits, std::int64_t prompt, std::int64_t position);

private:
    struct Candidate {
        double weight;
        std::int32_t token;
    };
    void keep_likely();
    [[nodiscard]] double total_weight() const;

    double temperature_;
    double top_p_;
    std::size_t top_k_;
    std::uint64_t seed_;
    std::vector<Candidate> candidates_;
    std::vector<Candidate> kept_;
};

} // namespace lolcats
