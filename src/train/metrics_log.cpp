#include "src/train/metrics_log.hpp"

#include "lolcats/error.hpp"

namespace lolcats {

MetricsLog::MetricsLog(const std::filesystem::path& path) : path_(path), file_(path) {
    if (!file_) fail("{}: cannot be written; check the directory and its permissions", path.string());
}

void MetricsLog::write(const nlohmann::ordered_json& line) {
    // The dump writes doubles with as many digits as bring the same value back.
    file_ << line.dump() << '\n' << std::flush;
    if (!file_) fail("{}: a line could not be written; check the free space of its file system", path_.string());
}

} // namespace lolcats
