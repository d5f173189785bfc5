#pragma once
/// A wish to stop, reduced over ranks that do not work in step.
#include "src/comm/communicator.hpp"

#include <array>

namespace lolcats {

/// Ranks reduce their wishes in rounds that run beside the work: a rank joins the next round whenever it asks, and
/// waits for none. All see the same outcome.
class StopAgreement {
public:
    /// Collective.
    explicit StopAgreement(const Communicator& world);

    /// Tells whether all ranks are to stop; at once, so possibly from an older round. A wish is to be repeated until it
    /// is granted: the round under way does not hold it.
    bool poll(bool wants_stop);
    /// For a rank that works no more, be it done or stopping. Waits until that is so for all of them, or until they
    /// agree to stop. Returns whether any rank wanted to stop. Collective.
    bool finish(bool wants_stop);

private:
    void join(bool wants_stop, bool works);
    void take_result();

    Communicator comm_;
    std::array<std::int64_t, 2> mine_{};   ///< {wants to stop, works}, both reduced by maximum
    std::array<std::int64_t, 2> result_{}; ///< of the round under way
    MPI_Request round_ = MPI_REQUEST_NULL;
    bool stops_ = false;
};

} // namespace lolcats
