#include "src/config_file.hpp"

#include "lolcats/error.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string_view>
#include <toml++/toml.h>

namespace lolcats {
namespace {

/// What stands in one file, for messages that name it and the line.
class ConfigTable {
public:
    ConfigTable(std::string name, std::string_view text) : name_(std::move(name)), table_(parse(text)) {}

    /// In the order of the lines.
    [[nodiscard]] std::vector<ConfigEntry> entries() const {
        std::vector<ConfigEntry> entries;
        for (const auto& [key, value] : table_)
            entries.push_back({std::string(key.str()), line_of(key.source()), value.is_array(), texts(value)});
        std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
        return entries;
    }

private:
    [[nodiscard]] toml::table parse(std::string_view text) const {
        try {
            return toml::parse(text, name_);
        } catch (const toml::parse_error& error) {
            stop(line_of(error.source()),
                 fmt::format("{}; write 'key = value', each key once, and text in double quotes", error.description()));
        }
    }

    static int line_of(const toml::source_region& source) { return static_cast<int>(source.begin.line); }

    [[noreturn]] void stop(int line, const std::string& what) const { fail("{}, line {}: {}", name_, line, what); }

    [[nodiscard]] std::vector<std::string> texts(const toml::node& value) const {
        if (!value.is_array()) return {text(value)};
        std::vector<std::string> texts;
        for (const toml::node& element : *value.as_array()) texts.push_back(text(element));
        return texts;
    }

    [[nodiscard]] std::string text(const toml::node& value) const {
        if (const auto* number = value.as_integer()) return std::to_string(number->get());
        if (const auto* number = value.as_floating_point())
            return fmt::format("{:#}", number->get()); // 64.0 is no integer
        if (const auto* flag = value.as_boolean()) return flag->get() ? "true" : "false";
        if (const auto* quoted = value.as_string()) return quoted->get();
        const int line = line_of(value.source());
        if (value.is_table()) stop(line, "sections are not used: write every key at the top level");
        stop(line, "a setting is text, a number, true or false, or an array of these");
    }

    std::string name_;
    toml::table table_;
};

} // namespace

std::vector<ConfigEntry> read_config_file(const std::filesystem::path& path) {
    std::error_code ignored;
    std::ifstream file(path, std::ios::binary);
    if (!file || std::filesystem::is_directory(path, ignored)) {
        fail("{}: cannot read this configuration file: check the path and its permissions", path.string());
    }
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return ConfigTable(path.string(), text).entries();
}

} // namespace lolcats
