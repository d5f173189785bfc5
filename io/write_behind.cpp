#include "io/write_behind.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

namespace lolcats::io {

WriteBehind::WriteBehind(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC)) {}

WriteBehind::WriteBehind(WriteBehind&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

WriteBehind& WriteBehind::operator=(WriteBehind&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}

WriteBehind::~WriteBehind() {
    if (fd_ >= 0) ::close(fd_);
}

void WriteBehind::start(std::uint64_t offset, std::uint64_t bytes) const noexcept {
    if (fd_ < 0) return;
    static_cast<void>(
        ::sync_file_range(fd_, static_cast<off64_t>(offset), static_cast<off64_t>(bytes), SYNC_FILE_RANGE_WRITE));
}

} // namespace lolcats::io
