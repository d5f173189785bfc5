#include "src/config_file.hpp"

#include "lolcats/error.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <string_view>

namespace lolcats {
namespace {

class Reader {
public:
    Reader(std::string name, std::string_view text) : name_(std::move(name)), text_(text) {}

    std::vector<ConfigEntry> read() {
        std::vector<ConfigEntry> entries;
        for (skip_blank(true); !at_end(); skip_blank(true)) {
            ConfigEntry entry = read_entry();
            const auto is_same = [&](const ConfigEntry& other) { return other.key == entry.key; };
            if (std::any_of(entries.begin(), entries.end(), is_same)) {
                stop(fmt::format("key '{}' is set twice: keep one", entry.key));
            }
            entries.push_back(std::move(entry));
        }
        return entries;
    }

private:
    [[noreturn]] void stop(const std::string& what) const { fail("{}, line {}: {}", name_, line_, what); }

    [[nodiscard]] bool at_end() const { return at_ == text_.size(); }
    [[nodiscard]] char peek() const { return at_end() ? '\n' : text_[at_]; }

    void skip_blank(bool across_lines) {
        while (!at_end()) {
            if (peek() == '#') {
                while (!at_end() && peek() != '\n') ++at_;
            } else if (peek() == '\n' && across_lines) {
                ++line_;
                ++at_;
            } else if (peek() == ' ' || peek() == '\t' || peek() == '\r') {
                ++at_;
            } else {
                return;
            }
        }
    }

    ConfigEntry read_entry() {
        if (peek() == '[') stop("sections are not used: write every key at the top level");
        ConfigEntry entry{read_key(), line_, false, {}};
        skip_blank(false);
        if (peek() != '=') stop(fmt::format("expected 'key = value' after '{}'", entry.key));
        ++at_;
        skip_blank(false);
        entry.is_array = peek() == '[';
        if (entry.is_array) {
            entry.values = read_array();
        } else {
            entry.values = {read_value()};
        }
        skip_blank(false);
        if (peek() != '\n') stop(fmt::format("the value of '{}' is followed by more text: quote it", entry.key));
        return entry;
    }

    std::string read_key() {
        if (peek() == '"' || peek() == '\'') return read_quoted();
        const std::string key = read_word("-_");
        if (key.empty()) stop(fmt::format("expected a key, found '{}'", peek()));
        return key;
    }

    std::vector<std::string> read_array() {
        std::vector<std::string> values;
        ++at_;
        for (skip_blank(true); peek() != ']'; skip_blank(true)) {
            if (at_end()) stop("an array is not closed: add ']'");
            values.push_back(read_value());
            skip_blank(true);
            if (peek() == ',') {
                ++at_;
            } else if (peek() != ']') {
                stop("expected ',' or ']' in an array");
            }
        }
        ++at_;
        return values;
    }

    std::string read_value() {
        if (peek() == '"' || peek() == '\'') return read_quoted();
        std::string word = read_word("-_+.");
        const bool is_number = !word.empty() && (std::isdigit(static_cast<unsigned char>(word[0])) != 0 ||
                                                 word[0] == '-' || word[0] == '+' || word == "inf" || word == "nan");
        if (word.empty()) stop("a value is missing");
        if (!is_number && word != "true" && word != "false") {
            stop(fmt::format("'{}' is neither a number nor true or false: put text in double quotes", word));
        }
        if (is_number) std::erase(word, '_'); // TOML lets 1_000 stand for 1000
        return word;
    }

    std::string read_word(std::string_view also) {
        const std::size_t begin = at_;
        while (!at_end() &&
               (std::isalnum(static_cast<unsigned char>(peek())) != 0 || also.find(peek()) != std::string_view::npos)) {
            ++at_;
        }
        return std::string(text_.substr(begin, at_ - begin));
    }

    std::string read_quoted() {
        const char quote = peek();
        std::string value;
        for (++at_; peek() != quote; ++at_) {
            if (peek() == '\n') stop("a quoted text is not closed on its line");
            if (peek() == '\\' && quote == '"') {
                ++at_;
                value += unescape(peek());
            } else {
                value += peek();
            }
        }
        ++at_;
        return value;
    }

    [[nodiscard]] char unescape(char c) const {
        switch (c) {
        case '"':
        case '\\':
            return c;
        case 'n':
            return '\n';
        case 't':
            return '\t';
        default:
            stop(fmt::format("unknown escape '\\{}': put the text in single quotes", c));
        }
    }

    std::string name_;
    std::string_view text_;
    std::size_t at_ = 0;
    int line_ = 1;
};

} // namespace

std::vector<ConfigEntry> read_config_file(const std::filesystem::path& path) {
    std::error_code ignored;
    std::ifstream file(path, std::ios::binary);
    if (!file || std::filesystem::is_directory(path, ignored)) {
        fail("{}: cannot read this configuration file: check the path and its permissions", path.string());
    }
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return Reader(path.string(), text).read();
}

} // namespace lolcats
