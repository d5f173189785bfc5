#include "lolcats/options.hpp"

#include "io/nearest_name.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/config_file.hpp"
#include "src/settings.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <regex>
#include <string_view>
#include <variant>

namespace lolcats {
namespace {

bool holds(const Bounds& bounds, double x) {
    const bool above = bounds.low_open ? x > bounds.low : x >= bounds.low;
    const bool below = bounds.high_open ? x < bounds.high : x <= bounds.high;
    return above && below; // NaN is neither
}

/// The whole of `text` as a number, or nothing.
template <class Number>
std::optional<Number> parse_number(const std::string& text) {
    const bool has_plus = text.size() > 1 && text[0] == '+' && text[1] != '-';
    Number number{};
    const char* begin = text.data() + (has_plus ? 1 : 0);
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, number);
    if (error != std::errc{} || stop != end || begin == end) return std::nullopt;
    return number;
}

bool parse_flag(const std::string& where, const std::string& text) {
    for (const char* yes : {"true", "on", "yes", "1"}) {
        if (text == yes) return true;
    }
    for (const char* no : {"false", "off", "no", "0"}) {
        if (text == no) return false;
    }
    fail("{}: '{}' is neither true nor false", where, text);
}

void check_choice(const std::string& where, const Words& choices, const std::string& text) {
    if (choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end()) return;
    fail("{}: '{}' is not one of {}", where, text, join(choices));
}

/// "a,b" and repeated values both make a list.
Words parse_list(const std::string& where, const Words& choices, const Words& texts) {
    Words list;
    for (const std::string& text : texts) {
        for (const std::string& item : CLI::detail::split(text, ',')) {
            check_choice(where, choices, item);
            if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
        }
    }
    if (list.empty())
        fail("{}: the list is empty: name at least one{}", where, choices.empty() ? "" : " of " + join(choices));
    return list;
}

/// Settings are stored as JSON, which is UTF-8.
void require_utf8(const std::string& where, const std::string& text) {
    try {
        static_cast<void>(nlohmann::json(text).dump());
    } catch (const nlohmann::json::exception&) {
        fail(
            "{}: the value is not UTF-8, as what is stored of the settings must be; rename the file, or give a link to "
            "it with a name that is",
            where);
    }
}

/// Sets one setting from its texts. `where` begins the message of an error: the option, or the file and its key.
void assign(const Setting& setting, const std::string& where, const Words& texts) {
    for (const std::string& each : texts) require_utf8(where, each);
    const std::string text = texts.empty() ? "" : texts.back();
    std::visit(Overloaded{
                   [&](std::string* value) {
                       check_choice(where, setting.choices, text);
                       *value = text;
                   },
                   [&](Words* value) { *value = parse_list(where, setting.choices, texts); },
                   [&](bool* value) { *value = parse_flag(where, text); },
                   [&](std::uint64_t* value) {
                       const auto number = parse_number<std::uint64_t>(text);
                       if (!number) fail("{}: '{}' is not an integer from 0 to 2^64 - 1", where, text);
                       *value = *number;
                   },
                   [&](int* value) {
                       const auto number = parse_number<int>(text);
                       if (!number || !holds(setting.bounds, *number)) {
                           fail("{}: '{}' is not an integer {}", where, text, describe(setting.bounds));
                       }
                       *value = *number;
                   },
                   [&](double* value) {
                       const auto number = parse_number<double>(text);
                       if (!number || !std::isfinite(*number) || !holds(setting.bounds, *number)) {
                           fail("{}: '{}' is not a number {}", where, text, describe(setting.bounds));
                       }
                       *value = *number;
                   },
               },
               setting.value);
}

using Names = std::vector<std::string_view>;

/// "did you mean 'PREFIXname'?" if one of the known names is near, else how to list them.
std::string advice(const std::string& name, const Names& known, const char* prefix) {
    const std::string best = io::nearest_name(name, known);
    const std::size_t near_enough = std::max<std::size_t>(2, name.size() / 2);
    if (io::edit_distance(name, best) > near_enough) return "see --help for those that exist";
    return fmt::format("did you mean '{}{}'?", prefix, best);
}

Names names_of(const std::vector<Setting>& settings) {
    Names names;
    for (const Setting& setting : settings) names.emplace_back(setting.name);
    return names;
}

const Setting* find(const std::vector<Setting>& settings, const std::string& name) {
    const auto has_name = [&](const Setting& setting) { return name == setting.name; };
    const auto found = std::find_if(settings.begin(), settings.end(), has_name);
    return found == settings.end() ? nullptr : &*found;
}

void apply_file(const std::filesystem::path& path, const std::vector<Setting>& settings, std::set<std::string>& given) {
    for (const ConfigEntry& entry : read_config_file(path)) {
        std::string name = entry.key;
        std::replace(name.begin(), name.end(), '_', '-');
        const Setting* setting = find(settings, name);
        if (setting == nullptr) {
            fail("unknown key '{}' in {}; {}", entry.key, path.string(), advice(name, names_of(settings), ""));
        }
        const std::string where = fmt::format("{}, line {}: {}", path.string(), entry.line, name);
        if (entry.is_array && !std::holds_alternative<Words*>(setting->value)) {
            fail("{} takes one value, not an array", where);
        }
        if (!given.insert(setting->name).second) fail("{} is set twice: keep one", where);
        assign(*setting, where, entry.values);
    }
}

nlohmann::ordered_json value_of(const Setting& setting) {
    return std::visit([](const auto* value) { return nlohmann::ordered_json(*value); }, setting.value);
}

/// What the command line says, before any of it is checked or applied.
struct CommandLine {
    std::string config;
    bool version = false;
    std::vector<std::pair<const Setting*, Words>> values;
};

void add_setting(CLI::App& app, const Setting& setting, CommandLine& line) {
    const auto keep = [&setting, &line](const CLI::results_t& texts) {
        line.values.emplace_back(&setting, texts);
        return true;
    };
    CLI::Option* option = app.add_option(std::string("--") + setting.name, keep, setting.help);
    option->group(setting.group);
    if (std::holds_alternative<bool*>(setting.value)) {
        option->expected(0)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        return;
    }
    const bool is_list = std::holds_alternative<Words*>(setting.value);
    option->expected(1)->type_name(type_name(setting))->default_str(text_of(setting));
    option->multi_option_policy(is_list ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
}

void refuse_extras(const Words& extras, const std::vector<Setting>& settings) {
    if (extras.empty()) return;
    const std::string& first = extras.front();
    if (!first.starts_with("--")) {
        fail("unexpected argument '{}': write settings as --name=value; see --help", first);
    }
    Names known = names_of(settings);
    known.insert(known.end(), {"config", "help", "version"});
    const std::string name = first.substr(2, first.find('=') - 2);
    fail("unknown option '--{}'; {}", name, advice(name, known, "--"));
}

/// CLI11 takes an option for the value of the one before it if that has none.
void refuse_missing_values(const CommandLine& line) {
    const auto check = [](const std::string& name, const std::string& text) {
        if (text.starts_with("--")) fail("--{}: a value is missing before '{}'", name, text);
    };
    check("config", line.config);
    for (const auto& [setting, texts] : line.values) {
        for (const std::string& text : texts) check(setting->name, text);
    }
}

/// The arguments as CLI11 wants them, last first. It would take what follows `--name=` for the value that is empty.
Words reversed_arguments(int argc, const char* const* argv) {
    Words arguments;
    for (int i = argc - 1; i > 0; --i) {
        const std::string argument = argv[i];
        const bool is_empty = argument.starts_with("--") && argument.find('=') == argument.size() - 1;
        if (is_empty) arguments.emplace_back();
        arguments.push_back(is_empty ? argument.substr(0, argument.size() - 1) : argument);
    }
    return arguments;
}

/// False if `text` now holds what --help or --version prints.
bool read_command_line(int argc, const char* const* argv, const ProgramText& program,
                       const std::vector<Setting>& settings, CommandLine& line, std::string& text) {
    CLI::App app(program.purpose, program.name);
    app.allow_extras();
    app.get_formatter()->column_width(36);
    app.set_help_flag("-h,--help", "print this help and exit");
    app.add_flag("--version", line.version, "print the version and exit");
    app.add_option("--config", line.config, "TOML file of settings; ./lolcats.toml is read if it exists")
        ->type_name("FILE");
    for (const Setting& setting : settings) add_setting(app, setting, line);
    app.footer("The command line overrides the file, whose keys are the same names without dashes in front.");
    try {
        app.parse(reversed_arguments(argc, argv));
    } catch (const CLI::CallForHelp&) {
        text = app.help();
        return false;
    } catch (const CLI::ParseError& error) {
        fail("{}; see --help", error.what());
    }
    if (line.version) {
        text = fmt::format("{} {} ({})\n", program.name, version_string(), git_hash());
        return false;
    }
    refuse_missing_values(line);
    refuse_extras(app.remaining(), settings);
    return true;
}

std::filesystem::path config_path(const CommandLine& line) {
    if (line.config.empty()) return std::filesystem::exists("lolcats.toml") ? "lolcats.toml" : "";
    if (!std::filesystem::exists(line.config)) {
        fail("{}: this configuration file does not exist: correct --config, or leave it out", line.config);
    }
    return line.config;
}

/// "D-HH:MM:SS", "HH:MM:SS" or a number of seconds.
std::optional<double> parse_duration(const std::string& text) {
    static const std::regex clock(R"((?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d))");
    std::smatch part;
    if (!std::regex_match(text, part, clock)) return parse_number<double>(text);
    const auto number = [&](int i) { return part[i].matched ? std::stod(part[i]) : 0.0; };
    return ((number(1) * 24 + number(2)) * 60 + number(3)) * 60 + number(4);
}

/// What measured best on the tiny teacher (docs/quality.md), where the user left it open.
void apply_recipe(Options& options) {
    if (options.recipe != "robust") return;
    const auto settle = [&](const char* name, auto& value, const auto& measured) {
        if (!options.is_given(name)) value = measured;
    };
    settle("far-xent-factor", options.far_xent_factor, 1.0);
    settle("train-feature-maps", options.train_feature_maps, true);
}

void refuse_contradictions(const Options& options) {
    static_cast<void>(wall_seconds(options));
    if (options.fresh && options.verify)
        fail("--verify checks what earlier runs stored and --fresh ignores it: give one of them");
}

} // namespace

double wall_seconds(const Options& options) {
    if (options.wall_time.empty()) return std::numeric_limits<double>::infinity();
    const auto seconds = parse_duration(options.wall_time);
    if (!seconds || !std::isfinite(*seconds) || *seconds <= 0)
        fail("--wall-time: '{}' is no time: give seconds, HH:MM:SS or D-HH:MM:SS", options.wall_time);
    return *seconds;
}

bool parse_options(int argc, const char* const* argv, const ProgramText& program, Options& options, std::string& text) {
    options = Options{};
    const std::vector<Setting> settings = settings_of(options);
    CommandLine line;
    if (!read_command_line(argc, argv, program, settings, line, text)) return false;
    const std::filesystem::path path = config_path(line);
    if (!path.empty()) apply_file(path, settings, options.given);
    for (const auto& [setting, texts] : line.values) {
        assign(*setting, std::string("--") + setting->name, texts);
        options.given.insert(setting->name);
    }
    apply_recipe(options);
    refuse_contradictions(options);
    return true;
}

nlohmann::ordered_json to_json(const Options& options) {
    Options copy = options; // the table points into what it describes
    nlohmann::ordered_json json;
    for (const Setting& setting : settings_of(copy)) json[setting.name] = value_of(setting);
    return json;
}

std::string to_table(const Options& options) {
    Options copy = options;
    const std::vector<Setting> settings = settings_of(copy);
    std::size_t width = 0;
    for (const Setting& setting : settings) width = std::max(width, std::string(setting.name).size());
    std::string table;
    const char* group = "";
    for (const Setting& setting : settings) {
        if (group != setting.group) table += fmt::format("{}\n", setting.group);
        group = setting.group;
        const char mark = options.is_given(setting.name) ? '*' : ' ';
        table += fmt::format("{} {:<{}}  {}\n", mark, setting.name, width, text_of(setting));
    }
    return table;
}

} // namespace lolcats
