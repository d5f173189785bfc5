#pragma once
/// Keeps an attempt whose successor has begun from changing files: a process that was stopped, or whose node came back,
/// finds out before it gives a file its name.
#include <filesystem>
#include <vector>

namespace lolcats::io {

/// Attempts on a work directory are numbered from 1; each has a file DIRECTORY/NNNNNN.json (io/work_lock.hpp).
std::filesystem::path attempt_file(const std::filesystem::path& directory, int attempt);

/// Numbers of the attempts that the directory has files of, ascending; none if it is not there. An Error if the disk
/// does not tell.
std::vector<int> attempts_in(const std::filesystem::path& directory);

/// Makes this process part of an attempt; 0: of none.
void set_current_attempt(const std::filesystem::path& directory, int attempt);
int current_attempt();

/// Whether a newer attempt has begun. False in a process that is part of none. An Error if the disk does not tell,
/// asked several times over half a second.
bool is_superseded();
/// An Error if so, or if this attempt's own file was deleted.
void require_current_attempt();

} // namespace lolcats::io
