#pragma once
/// JSON of files that anybody may have written.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lolcats::io {

/// Levels of nesting that are read. The library walks values by recursion, and a hostile file would end the program.
inline constexpr int deepest_json = 32;

/// As nlohmann::json::parse, with its exceptions and its `visit`. Deeper nesting is an Error that begins with `where`,
/// the file, and ends with `remedy`.
nlohmann::json parse_json(std::string_view text, const std::string& where, std::string_view remedy,
                          const nlohmann::json::parser_callback_t& visit = nullptr);

/// A discarded value, which is neither object nor array, where the text is no JSON or nests deeper.
nlohmann::json parse_json_or_discard(std::string_view text);

} // namespace lolcats::io
