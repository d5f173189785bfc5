#include "src/stages/prompts.hpp"

#include "io/file.hpp"
#include "io/json.hpp"
#include "io/token_store.hpp"
#include "lolcats/error.hpp"

#include <charconv>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace lolcats {

namespace {

using nlohmann::json;

bool is_hdf5(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string start(8, ' ');
    file.read(start.data(), static_cast<std::streamsize>(start.size()));
    return file && start == "\x89HDF\r\n\x1a\n";
}

std::vector<TokenIds> read_rows(const std::filesystem::path& path, int vocab_size) {
    const io::TokenStore store(path, vocab_size);
    std::vector<TokenIds> prompts(static_cast<std::size_t>(store.sequences()), TokenIds(store.length()));
    for (std::size_t i = 0; i < prompts.size(); ++i) store.read_tokens(static_cast<std::int64_t>(i), prompts[i].data());
    return prompts;
}

TokenIds read_line(const std::string& line, const std::string& where, int vocab_size) {
    const json object = io::parse_json_or_discard(line);
    if (!object.is_object() || !object.contains("tokens") || !object["tokens"].is_array())
        fail(R"({}: is not an object {{"tokens": [ids]}}; write one a line)", where);
    TokenIds tokens;
    for (const json& token : object["tokens"]) {
        if (!token.is_number_integer() || token < 0 || token >= vocab_size)
            fail("{}: holds token {}, which is no id of the model's vocabulary of {}; make it with the model's "
                 "tokenizer",
                 where, io::printable(token.dump()), vocab_size);
        tokens.push_back(token.get<std::int32_t>());
    }
    return tokens;
}

std::vector<TokenIds> read_lines(const std::filesystem::path& path, int vocab_size, bool may_be_empty) {
    std::ifstream file(path);
    if (!file || std::filesystem::is_directory(path))
        fail(R"({}: cannot be read; give a file of JSON lines {{"tokens": [ids]}} or a token store)", path.string());
    std::vector<TokenIds> prompts;
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const std::string where = fmt::format("{}, line {}", path.string(), number);
        prompts.push_back(read_line(line, where, vocab_size));
        if (prompts.back().empty() && !may_be_empty)
            fail("{}: the prompt is empty; give at least one token, such as the one that begins a text", where);
    }
    if (file.bad())
        fail("{}: cannot be read to its end; look at the disk, then run the same command again", path.string());
    return prompts;
}

std::int32_t token_id(const std::string& text, int vocab_size) {
    int id = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size() || id < 0 || id >= vocab_size)
        fail("--stop-token: '{}' is no id of the model's vocabulary of {}; give ids separated by commas, or none", text,
             vocab_size);
    return id;
}

/// JSON has numbers above 2^63, which its library compares as if they were negative.
bool is_token_id(const json& id) {
    using Limits = std::numeric_limits<std::int32_t>;
    if (id.is_number_unsigned()) return id.get<std::uint64_t>() <= Limits::max();
    return id.is_number_integer() && id.get<std::int64_t>() >= Limits::min();
}

/// eos_token_id of a JSON file: a number or several; nothing where there is no file or no such key.
std::optional<std::set<std::int32_t>> eos_tokens(const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) return std::nullopt;
    const json config = io::parse_json_or_discard(io::read_file(path));
    if (!config.is_object()) fail("{}: is not a JSON object, or nested too deep; fetch it again", path.string());
    const json ids = config.value("eos_token_id", json());
    if (ids.is_null()) return std::nullopt;
    std::set<std::int32_t> tokens;
    for (const json& id : ids.is_array() ? ids : json::array({ids})) {
        if (!is_token_id(id))
            fail("{}: eos_token_id {} is neither an id nor several; correct it, or give --stop-token", path.string(),
                 io::printable(ids.dump()));
        tokens.insert(id.get<std::int32_t>());
    }
    return tokens;
}

} // namespace

std::vector<TokenIds> read_prompts(const std::filesystem::path& path, int vocab_size, bool may_be_empty) {
    auto prompts = is_hdf5(path) ? read_rows(path, vocab_size) : read_lines(path, vocab_size, may_be_empty);
    if (prompts.empty()) fail("{}: holds no prompt; give one a line", path.string());
    return prompts;
}

std::set<std::int32_t> stop_tokens(const Options& options, int vocab_size) {
    std::set<std::int32_t> tokens;
    if (options.stop_tokens == std::vector<std::string>{"none"}) return tokens;
    for (const std::string& text : options.stop_tokens) tokens.insert(token_id(text, vocab_size));
    if (!tokens.empty()) return tokens;
    for (const char* file : {"generation_config.json", "config.json"})
        if (const auto found = eos_tokens(std::filesystem::path(options.model) / file)) return *found;
    return tokens;
}

} // namespace lolcats
