#pragma once
/// What tells one training from another, so that a run goes on only with what is its own.
#include "io/trainer_state.hpp"
#include "src/model/students.hpp"
#include "src/stages/run_input.hpp"

#include <filesystem>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace lolcats {

/// Collects it on every rank alike. Settings that no number depends on (paths, logs, numbers of ranks, micro-batches)
/// are no part of it.
class IdentityBuilder {
public:
    IdentityBuilder(const Options& options, const RunInput& input, const InputIdentity& content,
                    const std::string& program);

    /// These options as they were given.
    IdentityBuilder& with_options(std::initializer_list<const char*> names);
    /// Values that were settled otherwise.
    IdentityBuilder& with(const std::map<std::string, std::string>& values);
    [[nodiscard]] io::TrainingIdentity build() const;

private:
    nlohmann::ordered_json options_;
    nlohmann::ordered_json settings_;
    io::TrainingIdentity identity_;
};

/// For the metadata of a result, and from there.
std::map<std::string, std::string> to_metadata(const io::TrainingIdentity& identity);

/// Whether `file` is what the training of this identity ends with. One of other settings is not, and a line on the
/// console says which; one of another model or other tokens is an Error unless options.fresh.
bool is_result(const std::filesystem::path& file, const io::TrainingIdentity& identity, const Options& options);

/// Throws Error if `path`, which --OPTION gave, is in the directory `results`, or has links to what is in it: a run
/// that replaces them would change what it starts from, and then refuse its own checkpoints.
void refuse_own_results(const std::string& option, const std::filesystem::path& path,
                        const std::filesystem::path& results);

/// Hash of the files' content, "none" if there are none.
std::string content_identity(const std::vector<std::filesystem::path>& files);

} // namespace lolcats
