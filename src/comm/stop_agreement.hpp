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

    /// Whether all ranks are to stop. Returns at once, so the answer may be that of an earlier round. Repeat a wish
    /// until it is granted: a round that has begun does not include it.
    bool poll(bool wants_stop);
    /// For a rank whose work has ended, because it is done or stops. Waits until all have ended or agree to stop.
    /// Returns whether any rank wanted to stop. Collective.
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
