#include "lolcats/plan.hpp"

#include "io/token_store.hpp"
#include "lolcats/error.hpp"
#include "lolcats/stream_plan.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

namespace lolcats {
namespace {

using std::filesystem::path;

/// The directory itself, or the nearest one above it that exists.
path existing_directory(const path& directory) {
    std::error_code error;
    path place = std::filesystem::absolute(directory);
    while (!std::filesystem::is_directory(place, error) && place.has_relative_path()) place = place.parent_path();
    return place;
}

/// Bytes on disk of the hidden states that an earlier run stored in `work`.
double stored_bytes(const path& work) {
    std::error_code error;
    double bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(work / "hidden", error)) {
        struct stat info {};
        if (::stat(entry.path().c_str(), &info) == 0) bytes += 512.0 * static_cast<double>(info.st_blocks);
    }
    return bytes;
}

} // namespace

void measure_tokens(const ModelConfig& model, Options& options) {
    if (options.tokens.empty()) fail("tokens is not set: give --tokens FILE, which the plan is checked for");
    const io::TokenStore tokens(options.tokens, model.vocab_size, options.sequences);
    options.plan_length = static_cast<int>(tokens.length());
    options.plan_tokens = static_cast<double>(tokens.sequences()) * options.plan_length;
}

void check_plan(const Plan& plan, const Options& options) {
    const BlockPlan& row = plan.choices.at(plan.chosen);
    const double needed =
        options.plan_streaming ? std::max(plan_streaming(plan, options).memory, row.memory[2]) : row.largest_memory();
    if (needed > plan.memory)
        fail("{}: a rank needs {:.1f} GB but has {:.1f} GB; use more ranks, a smaller --micro-batch or "
             "--block-layers, or --dtype fp8",
             options.model, needed / 1e9, plan.memory / 1e9);
    if (options.plan_streaming) return; // no hidden state goes to the disk
    const path place = existing_directory(options.work);
    std::error_code error;
    const auto space = std::filesystem::space(place, error);
    if (error) fail("{}: cannot find out how much is free there: {}", place.string(), error.message());
    const double free = static_cast<double>(space.available) + stored_bytes(options.work);
    if (row.store_bytes > free)
        fail("{}: the hidden states need {:.6g} GB but {:.6g} GB are free; free space, give another --work, raise "
             "--block-layers, or store none: lolcats_convert",
             place.string(), row.store_bytes / 1e9, free / 1e9);
}

} // namespace lolcats
