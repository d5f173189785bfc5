#include "io/json.hpp"

#include "lolcats/error.hpp"

namespace lolcats::io {

using nlohmann::json;

json parse_json(std::string_view text, const std::string& where, std::string_view remedy,
                const json::parser_callback_t& visit) {
    const auto bounded = [&](int depth, json::parse_event_t event, json& parsed) {
        if (depth > deepest_json) fail("{}: is nested more than {} levels deep; {}", where, deepest_json, remedy);
        return visit == nullptr || visit(depth, event, parsed);
    };
    return json::parse(text, bounded);
}

json parse_json_or_discard(std::string_view text) {
    try {
        return parse_json(text, "", "");
    } catch (const Error&) {
        return json::value_t::discarded;
    } catch (const json::exception&) {
        return json::value_t::discarded;
    }
}

} // namespace lolcats::io
