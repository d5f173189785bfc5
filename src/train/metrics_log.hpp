#pragma once
/// JSON lines: one object a line, numbers in full precision.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace lolcats {

class MetricsLog {
public:
    /// Replaces the file. Throws Error if it cannot be written.
    explicit MetricsLog(const std::filesystem::path& path);
    /// Throws Error if the line does not get to the file (disk full).
    void write(const nlohmann::ordered_json& line);

private:
    std::filesystem::path path_;
    std::ofstream file_;
};

} // namespace lolcats
