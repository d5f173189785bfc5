#include "src/stages/run_identity.hpp"

#include "io/file.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

namespace fs = std::filesystem;

/// Whether an absolute path without links is `directory` or in it, whatever names lead there.
bool lies_in(const fs::path& directory, const fs::path& path) {
    std::error_code ignored; // what is not there is not the same
    for (fs::path at = path;; at = at.parent_path()) {
        if (fs::equivalent(at, directory, ignored)) return true;
        if (at == at.parent_path()) return false;
    }
}

/// Of a link both its own place and what it leads to: either may be replaced.
bool is_kept_in(const fs::path& directory, const fs::path& path) {
    std::error_code ignored;
    if (lies_in(directory, fs::weakly_canonical(path, ignored))) return true;
    const fs::path parent = fs::absolute(path, ignored).parent_path();
    return fs::is_symlink(path, ignored) && lies_in(directory, fs::weakly_canonical(parent, ignored));
}

} // namespace

IdentityBuilder::IdentityBuilder(const Options& options, const RunInput& input, const InputIdentity& content,
                                 const std::string& program)
    : options_(to_json(options)), identity_{content.model, content.tokens, "", run_deck(options, program).dump()} {
    settings_["program"] = program;
    settings_["sequences"] = input.tokens.sequences();
    with_options({"dtype", "seed", "validation", "shuffle", "batch-size", "steps", "epochs", "lr", "min-lr", "beta1",
                  "beta2", "epsilon", "weight-decay", "clip", "schedule", "plateau-factor", "plateau-patience",
                  "eval-every", "feature-map-init"});
    with_options({"window-dropout", "window-dropout-kind"});
}

IdentityBuilder& IdentityBuilder::with_options(std::initializer_list<const char*> names) {
    for (const char* name : names) settings_[name] = options_.at(name);
    return *this;
}

IdentityBuilder& IdentityBuilder::with(const std::map<std::string, std::string>& values) {
    for (const auto& [key, value] : values) settings_[key] = value;
    return *this;
}

io::TrainingIdentity IdentityBuilder::build() const {
    io::TrainingIdentity identity = identity_;
    identity.settings = settings_.dump();
    return identity;
}

std::map<std::string, std::string> to_metadata(const io::TrainingIdentity& identity) {
    return {{"model_identity", identity.model},
            {"tokens_identity", identity.tokens},
            {"settings", identity.settings},
            {"run_deck", identity.run_deck}};
}

bool is_result(const std::filesystem::path& file, const io::TrainingIdentity& identity, const Options& options) {
    if (options.fresh || !std::filesystem::exists(file)) return false;
    io::TrainingIdentity found;
    try {
        const auto metadata = io::SafetensorsFile(file).metadata();
        if (!metadata.contains("settings")) return false; // no program of ours wrote it
        const auto text = [&](const char* key) { return metadata.contains(key) ? metadata.at(key) : ""; };
        found = {text("model_identity"), text("tokens_identity"), text("settings"), ""};
    } catch (const Error& error) {
        spdlog::warn("{}; training anew", error.what());
        return false;
    }
    const auto text = difference(found, identity);
    if (text.empty()) return true;
    if (found.model != identity.model || found.tokens != identity.tokens)
        fail("{}: this is the result of another training: {}; give another --work, or replace it with --fresh",
             file.string(), text);
    spdlog::info("{} is of other settings ({}): training anew", file.string(), text);
    return false;
}

void refuse_own_results(const std::string& option, const fs::path& path, const fs::path& results) {
    bool is_own = is_kept_in(results, path);
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(path, ignored))
        if (entry.is_symlink(ignored) && entry.is_regular_file(ignored))
            is_own = is_own || is_kept_in(results, entry.path());
    if (is_own)
        fail("--{} {}: this run replaces or removes what is in {}, and must not start from it; give another --work",
             option, path.string(), results.string());
}

std::string content_identity(const std::vector<std::filesystem::path>& files) {
    if (files.empty()) return "none";
    std::string hashes;
    for (const auto& file : files) hashes += io::to_hex(io::hash_file(file));
    return io::to_hex(io::hash64(std::as_bytes(std::span(hashes))));
}

} // namespace lolcats
