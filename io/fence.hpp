#pragma once
/// Keeps an attempt whose successor has begun from changing files: a process that was stopped, or whose node came back,
/// finds out before it gives a file its name.
#include <filesystem>

namespace lolcats::io {

/// Attempts on a work directory are numbered from 1; each has a file DIRECTORY/NNNNNN.json (io/work_lock.hpp).
std::filesystem::path attempt_file(const std::filesystem::path& directory, int attempt);

/// Makes this process part of an attempt; 0: of none.
void set_current_attempt(const std::filesystem::path& directory, int attempt);
int current_attempt();

/// Whether a newer attempt has begun. False in a process that is part of none.
bool is_superseded();
/// An Error if so.
void require_current_attempt();

} // namespace lolcats::io
