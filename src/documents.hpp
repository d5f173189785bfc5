#pragma once
/// Manual pages and completion, written from the tables of programs and settings.
#include "lolcats/programs.hpp"

#include <string>

namespace lolcats {

/// One program's page for section 1, in man(7). `date`: YYYY-MM-DD.
std::string manual_page(const ProgramText& program, const std::string& version, const std::string& date);

/// Completion of all programs for bash: options, their choices, and file names for other values.
std::string bash_completion();

} // namespace lolcats
