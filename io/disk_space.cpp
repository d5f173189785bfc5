#include "io/disk_space.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "io/file.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {

std::string find_shortage(const std::filesystem::path& file, std::uintmax_t bytes, const char* of) {
    std::error_code error;
    const auto space = std::filesystem::space(file.parent_path(), error);
    if (error || space.available >= bytes) return {};
    return fmt::format("no room for the {} bytes of {}: {}{}", bytes, of, std::strerror(ENOSPC), free_space_hint(file));
}

std::string reserve(const std::filesystem::path& file, const char* of) {
    const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    struct stat status {};
    int result = fd < 0 ? -1 : ::fstat(fd, &status);
    if (result == 0) {
        do {
            result = ::fallocate(fd, 0, 0, status.st_size);
        } while (result != 0 && errno == EINTR);
    }
    const int error = errno;
    if (fd >= 0) ::close(fd);
    if (result == 0 || error == EOPNOTSUPP || error == ENOSYS) return {};
    return fmt::format("cannot reserve the {} bytes of {}: {}{}", status.st_size, of, std::strerror(error),
                       free_space_hint(file));
}

} // namespace lolcats::io
