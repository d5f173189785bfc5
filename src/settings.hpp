#pragma once
/// The table of settings: what every program's options, --help, manual page, completion and configuration file follow.
#include "lolcats/options.hpp"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace lolcats {

using Words = std::vector<std::string>;

/// What a number may be; an open end is itself left out.
struct Bounds {
    double low;
    double high;
    bool low_open = false;
    bool high_open = false;
};

struct Setting {
    const char* name;
    std::variant<std::string*, Words*, int*, std::uint64_t*, double*, bool*> value;
    const char* group;
    const char* help;
    Words choices = {};     ///< of a text or a list; empty: any
    Bounds bounds = {0, 0}; ///< of an int or a double
};

template <class... Visitors>
struct Overloaded : Visitors... {
    using Visitors::operator()...;
};

/// All settings, each pointing into `options`, in the order of --help.
std::vector<Setting> settings_of(Options& options);

std::string join(const Words& words, const char* separator = ", ");

/// "at least 1 and at most 9"
std::string describe(const Bounds& bounds);

/// What stands for a setting's value in a synopsis: its choices, or TEXT, LIST, INT, NUMBER; nothing for a flag.
std::string type_name(const Setting& setting);

/// The value as it would be written on the command line.
std::string text_of(const Setting& setting);

} // namespace lolcats
