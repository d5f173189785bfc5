#pragma once
/// Log lines on stderr; on a terminal also one status line below them, which is drawn anew in place. Results on stdout.
#include <string>

namespace lolcats {

/// Sends spdlog's lines, of the program of this name, to stderr: stdout is for results.
void start_console(const std::string& name);

/// Shows `text` as the status line, or with "" none. Does nothing unless stderr is a terminal (under mpirun it is not:
/// there, as in a log, log lines tell how far the work is).
void show_status(const std::string& text);

/// Writes out what was printed on stdout; it would be lost where the process ends at once.
void flush_results();
/// The same; an Error if not all of it could be written.
void require_results_out();

} // namespace lolcats
