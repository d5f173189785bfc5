#pragma once
/// What every program of the conversion does around its one stage: MPI, Kokkos, options, errors.
#include "lolcats/options.hpp"
#include "lolcats/programs.hpp"

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace lolcats {

class Communicator;

/// Version of the layout of what the programs write, but for files that name one of their own (docs/formats.md).
inline constexpr int format_version = 1;

/// What a program does, given its resolved settings and all ranks of the run.
using Stage = std::function<void(const Options& options, const Communicator& world)>;

/// Whether a program computes on arrays: if so, Kokkos is started, in a build for GPUs on this rank's GPU.
enum class Arrays { unused, used };

/// Runs a program and returns its exit status: sets up MPI (asks for MPI_THREAD_SERIALIZED, is content with
/// MPI_THREAD_FUNNELED) and Kokkos, reads the options, prints the resolved table on the stderr of rank 0 (stdout is
/// kept for results) and calls `stage`. A run whose results could not be written to stdout fails.
///
/// The status is 85 if the stage stopped before its end, by a signal or because its time was up, and is to be started
/// again (src/interrupt.hpp).
///
/// An exception becomes one line on stderr for each node, however many ranks throw it, and a non-zero status of all
/// ranks. On several ranks an exception that leaves `stage` is reported where it is thrown, **without unwinding**: a
/// destructor that calls a collective operation (closing a parallel HDF5 file, say) would otherwise wait for ranks that
/// never come, and the message would never be seen. So do not rely on destructors to tidy the disk after an error.
int run_program(int argc, char** argv, const ProgramText& program, const Stage& stage, Arrays arrays = Arrays::used);

/// Version of the program, such as "0.1.0".
std::string version_string();

/// `git describe --always --dirty` of the sources; "unknown" if they were built outside a repository.
std::string git_hash();

/// {program, version, git, format_version, options}, these without what results do not depend on: stored in results.
nlohmann::ordered_json run_deck(const Options& options, const std::string& program);

} // namespace lolcats
