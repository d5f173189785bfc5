#pragma once
/// Rows of the next micro-batch are read from files while the present one is computed.
#include "kernels/views.hpp"
#include "src/train/batches.hpp"

#include <functional>
#include <future>

namespace lolcats {

class ReadAhead {
public:
    /// Writes the rows of these sequences, one after another, at `out`. It is called from another thread, by one at a
    /// time.
    using Read = std::function<void(const Sequences& sequences, float* out)>;

    /// `rows` a sequence of `width` numbers, `most` sequences at once.
    ReadAhead(Read read, int rows, int width, int most);
    ReadAhead(const ReadAhead&) = delete;
    ReadAhead& operator=(const ReadAhead&) = delete;
    ~ReadAhead();

    /// Begins to read these. That is a guess: fetch() may ask for others. Errors of reading show in fetch() if it does
    /// ask for them.
    void expect(const Sequences& sequences);

    /// x[count rows, width] of these sequences.
    void fetch(const Sequences& sequences, const Matrix<float>& x);

private:
    void wait() noexcept;

    Read read_;
    int rows_;
    Kokkos::View<float**, Kokkos::LayoutRight, Kokkos::SharedHostPinnedSpace> buffer_;
    Sequences expected_;
    std::future<void> reading_;
};

} // namespace lolcats
