#pragma once
/// Reading memory that is mapped from a file, where a disk that fails shows as a signal and not as a status.
#include <functional>

namespace lolcats::io {

/// Calls `action`. False if a page of mapped memory that it read could not be had: the disk failed, or the file has
/// been cut short since it was mapped. `action` is then left where it is, so it must own nothing that wants destroying.
[[nodiscard]] bool read_mapped(const std::function<void()>& action);

} // namespace lolcats::io
