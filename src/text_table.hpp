#pragma once
/// Text for people: tables, lists, sizes.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

namespace lolcats {

inline std::string gigabytes(double bytes) {
    return fmt::format("{:.1f} GB", bytes / 1e9);
}

using TableRows = std::vector<std::vector<std::string>>;

/// Columns as wide as their widest cell, flush right.
inline std::string aligned(const TableRows& rows) {
    std::vector<std::size_t> widths(rows.front().size());
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) text += fmt::format("{:>{}}", row[i], widths[i] + (i > 0 ? 2 : 0));
        text += '\n';
    }
    return text;
}

/// A name and what it is, of a list.
inline std::string line(const std::string& name, const std::string& value) {
    return fmt::format("{:<36} {}\n", name, value);
}

} // namespace lolcats
