#pragma once
/// Bytes on their way to the disk while the next ones are still being computed.
#include <cstdint>
#include <filesystem>

namespace lolcats::io {

/// The operating system by itself leaves written bytes in memory for half a minute, and the whole file then waits for
/// the disk when it is synced.
class WriteBehind {
public:
    WriteBehind() = default;
    /// Does nothing, then and later, where the file cannot be opened: all of this is a hint.
    explicit WriteBehind(const std::filesystem::path& path);
    WriteBehind(WriteBehind&& other) noexcept;
    WriteBehind& operator=(WriteBehind&& other) noexcept;
    ~WriteBehind();

    /// Begins to write to the disk what was written to these bytes of the file; does not wait for it.
    void start(std::uint64_t offset, std::uint64_t bytes) const noexcept;

private:
    int fd_ = -1;
};

} // namespace lolcats::io
