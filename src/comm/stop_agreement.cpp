#include "src/comm/stop_agreement.hpp"

#include <chrono>
#include <thread>

namespace lolcats {

StopAgreement::StopAgreement(const Communicator& world) : comm_(world.duplicate()) {}

void StopAgreement::join(bool wants_stop, bool works) {
    if (stops_ || round_ != MPI_REQUEST_NULL) return;
    mine_ = {wants_stop ? 1 : 0, works ? 1 : 0};
    check_mpi(MPI_Iallreduce(mine_.data(), result_.data(), 2, MPI_INT64_T, MPI_MAX, comm_.get(), &round_),
              "MPI_Iallreduce");
}

void StopAgreement::take_result() {
    int done = 0;
    check_mpi(MPI_Test(&round_, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0 && result_[0] != 0) stops_ = true;
}

bool StopAgreement::poll(bool wants_stop) {
    if (comm_.size() == 1) return wants_stop;
    join(wants_stop, true);
    take_result();
    return stops_;
}

bool StopAgreement::finish(bool wants_stop) {
    using namespace std::chrono_literals;
    if (comm_.size() == 1) return wants_stop;
    while (!stops_) {
        join(wants_stop, false);
        take_result();
        const bool is_over = round_ == MPI_REQUEST_NULL;
        if (is_over && result_[0] == 0 && result_[1] == 0) return false;
        if (!is_over) std::this_thread::sleep_for(1ms); // leaves the core to ranks that compute
    }
    return true;
}

} // namespace lolcats
