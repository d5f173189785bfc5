#pragma once
/// The name a user may have meant.
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace lolcats::io {

/// Levenshtein's: the fewest characters to insert, delete or replace to make `b` of `a`. Takes |a| |b| steps.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate with the smallest edit distance from `name`; empty if there are no candidates.
std::string nearest_name(std::string_view name, const std::vector<std::string_view>& candidates);

/// The same over the keys of a map.
template <class Value>
std::string nearest_key(std::string_view name, const std::map<std::string, Value>& map) {
    std::vector<std::string_view> keys;
    keys.reserve(map.size());
    for (const auto& [key, value] : map) keys.push_back(key);
    return nearest_name(name, keys);
}

} // namespace lolcats::io
