#pragma once
/// JSON lines: one object a line, numbers in full precision.
#include "io/file.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>

namespace lolcats {

class MetricsLog {
public:
    /// Goes on after the first `keep` bytes; 0 replaces the file. Throws Error if it cannot be written.
    explicit MetricsLog(const std::filesystem::path& path, std::int64_t keep = 0) : file_(path, keep) {}
    /// Throws Error if the line does not get to the file (disk full).
    void write(const nlohmann::ordered_json& line) {
        // The dump writes doubles with as many digits as bring the same value back.
        file_.append(line.dump() + "\n");
    }
    void sync() const { file_.sync(); }
    [[nodiscard]] std::int64_t size() const { return file_.size(); }

private:
    io::AppendFile file_;
};

} // namespace lolcats
