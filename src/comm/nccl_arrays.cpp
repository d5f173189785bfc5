#include "src/comm/nccl_arrays.hpp"

#include "kernels/accelerator.hpp"
#include "kernels/cuda_check.hpp"
#include "kernels/views.hpp"

#include <nccl.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <set>
#include <thread>

namespace lolcats {

namespace {

using namespace std::chrono_literals;

CudaEvent make_cuda_event() {
    cudaEvent_t event = nullptr;
    LOLCATS_CHECK_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return CudaEvent(event);
}

/// Beside the compute stream, and ahead of it where both have blocks to place: a transfer is short, and others wait.
CudaStream make_cuda_stream() {
    int least = 0;
    int greatest = 0;
    LOLCATS_CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cudaStream_t stream = nullptr;
    LOLCATS_CHECK_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
    return CudaStream(stream);
}

int current_device() {
    int device = 0;
    LOLCATS_CHECK_CUDA(cudaGetDevice(&device));
    return device;
}

bool is_over(cudaEvent_t event) {
    const cudaError_t status = cudaEventQuery(event);
    if (status != cudaErrorNotReady) {
        check_cuda(status, "cudaEventQuery", __FILE__, __LINE__);
        return true;
    }
    // That was no error, but CUDA remembers it, and the next one to ask after a kernel's launch would take it for one.
    (void)cudaGetLastError();
    return false;
}

bool is_error(ncclResult_t result) {
    return result != ncclSuccess && result != ncclInProgress;
}

/// On a stream, between the work before and an event behind it.
struct Operation {
    const char* what;
    CudaEvent done = make_cuda_event();
    Patience::Clock::time_point start = Patience::Clock::now();
};

class NcclArrays final : public ArrayCommunicator {
public:
    NcclArrays(const Communicator& group, const Patience& patience, int most_blocks)
        : ArrayCommunicator(group, patience) {
        ncclUniqueId id{};
        if (rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
        group.broadcast(&id, sizeof id, 0); // the first rank may be seconds on its way
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0; // no call of NCCL's may wait for a rank that is dead
        config.maxCTAs = most_blocks;
        run(Patience(patience_.group(), std::max<std::chrono::duration<double>>(patience_.limit(), 2min)),
            "the start of NCCL", // which takes seconds, however soon a rank is to be given up later
            [&] { return ncclCommInitRankConfig(&comm_, size(), id, rank(), &config); });
        watch_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
    }

    NcclArrays(const NcclArrays&) = delete;
    NcclArrays& operator=(const NcclArrays&) = delete;

    ~NcclArrays() override {
        watch_.request_stop();
        if (watch_.joinable()) watch_.join();
        try {
            if (comm_ != nullptr) close();
        } catch (const std::exception&) { // a destructor has nobody to tell, and run() has ended the communicator
        }
    }

    [[nodiscard]] const char* name() const override { return "NCCL"; }

    std::unique_ptr<Transfer> sum(float* values, std::size_t count) override {
        return start_sum(values, count, ncclFloat);
    }
    std::unique_ptr<Transfer> sum(double* values, std::size_t count) override {
        return start_sum(values, count, ncclDouble);
    }
    std::unique_ptr<Transfer> broadcast(void* bytes, std::size_t count, int root) override {
        return start("a broadcast",
                     [&] { return ncclBroadcast(bytes, bytes, count, ncclUint8, root, comm_, stream_.get()); });
    }
    std::unique_ptr<Transfer> send(const void* bytes, std::size_t count, int destination) override {
        return start("a message to another rank",
                     [&] { return ncclSend(bytes, count, ncclUint8, destination, comm_, stream_.get()); });
    }
    std::unique_ptr<Transfer> receive(void* bytes, std::size_t count, int source) override {
        return start("a message from another rank",
                     [&] { return ncclRecv(bytes, count, ncclUint8, source, comm_, stream_.get()); });
    }

    /// Error if the communicator has been ended.
    void require_whole() {
        const std::lock_guard lock(mutex_);
        throw_if_ended();
    }

private:
    /// What is under way, and a problem that ends it, are told by the watch; waiting only looks at the event.
    class Pending final : public Transfer {
    public:
        Pending(NcclArrays& owner, std::shared_ptr<Operation> operation)
            : owner_(owner), operation_(std::move(operation)) {}

        void wait() override {
            if (!operation_) return;
            while (!is_over(operation_->done.get())) {
                owner_.require_whole();
                std::this_thread::yield();
            }
            owner_.require_whole(); // an operation that was ended is over, too
            operation_.reset();
        }

    private:
        NcclArrays& owner_;
        std::shared_ptr<Operation> operation_;
    };

    template <class T>
    std::unique_ptr<Transfer> start_sum(T* values, std::size_t count, ncclDataType_t type) {
        return start("a sum over ranks",
                     [&] { return ncclAllReduce(values, values, count, type, ncclSum, comm_, stream_.get()); });
    }

    /// Puts an operation on this communicator's stream, behind all work submitted to the compute stream so far. Compute
    /// goes on beside it until somebody waits.
    template <class Call>
    std::unique_ptr<Transfer> start(const char* what, Call&& call) {
        LOLCATS_CHECK_CUDA(cudaEventRecord(submitted_.get(), Execution().cuda_stream()));
        LOLCATS_CHECK_CUDA(cudaStreamWaitEvent(stream_.get(), submitted_.get(), 0));
        run(patience_, what, call);
        auto operation = std::make_shared<Operation>(what);
        LOLCATS_CHECK_CUDA(cudaEventRecord(operation->done.get(), stream_.get()));
        const std::lock_guard lock(mutex_);
        under_way_.push_back(operation);
        return std::make_unique<Pending>(*this, std::move(operation));
    }

    /// A call of a communicator that does not block may return before the operation is on the stream. Until NCCL says
    /// that it is, neither may an event be recorded behind it nor the communicator be used again.
    template <class Call>
    void run(const Patience& patience, const char* what, Call&& call) {
        try {
            {
                const std::lock_guard lock(mutex_);
                throw_if_ended();
                check(call(), what);
            }
            patience.wait(what, [&] { return is_settled(what); });
        } catch (const Error& error) {
            end(error.what());
            throw;
        }
    }

    bool is_settled(const char* what) {
        const std::lock_guard lock(mutex_);
        throw_if_ended();
        ncclResult_t state = ncclSuccess;
        check(ncclCommGetAsyncError(comm_, &state), what);
        check(state, what);
        return state != ncclInProgress;
    }

    void check(ncclResult_t result, const char* what) const {
        if (is_error(result)) throw Error(describe(result, what));
    }

    [[nodiscard]] std::string describe(ncclResult_t result, const char* what) const {
        const char* detail = ncclGetLastError(nullptr);
        return fmt::format("{}: {} failed: NCCL: {} ({}); start the run again, with NCCL_DEBUG=WARN if it fails again, "
                           "or with --communication mpi",
                           patience_.group(), what, ncclGetErrorString(result),
                           detail == nullptr || *detail == '\0' ? "no details" : detail);
    }

    void throw_if_ended() const {
        if (!problem_.empty()) throw Error(problem_);
    }

    /// The watch is a thread of its own because the main thread may be anywhere when a transfer breaks: also in a
    /// synchronisation of the whole device, which waits for that very transfer. An exception that leaves this thread
    /// ends all ranks, as one of the main thread does.
    void watch(const std::stop_token& stop) {
        LOLCATS_CHECK_CUDA(cudaSetDevice(device_));
        std::mutex sleeping;
        std::condition_variable_any never;
        std::unique_lock lock(sleeping);
        while (!stop.stop_requested()) {
            never.wait_for(lock, stop, 100ms, [] { return false; });
            const std::string problem = find_problem();
            if (problem.empty()) continue;
            end(problem);
            throw Error(problem);
        }
    }

    std::string find_problem() {
        const std::unique_lock lock(mutex_, std::try_to_lock);
        if (!lock.owns_lock() || comm_ == nullptr) return ""; // the main thread is there itself
        ncclResult_t state = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
        const char* what = under_way_.empty() ? "a communicator at rest" : under_way_.front()->what;
        for (const ncclResult_t result : {asked, state})
            if (is_error(result)) return describe(result, what);
        while (!under_way_.empty() && is_over(under_way_.front()->done.get())) {
            under_way_.pop_front();
            if (!under_way_.empty()) under_way_.front()->start = Patience::Clock::now(); // its turn begins
        }
        if (under_way_.empty() || !patience_.is_over(under_way_.front()->start)) return "";
        return patience_.complaint(under_way_.front()->what);
    }

    /// Ends what is under way, whose kernels would keep the GPU busy for ever. NCCL may itself wait for a rank that is
    /// gone while it does so, and is therefore not waited for long.
    void end(const std::string& problem) {
        ncclComm_t comm = nullptr;
        {
            const std::lock_guard lock(mutex_);
            if (problem_.empty()) problem_ = problem;
            comm = std::exchange(comm_, nullptr);
        }
        if (comm == nullptr) return;
        apart(comm, ncclCommAbort, 10s);
    }

    /// Either may wait for the ranks of the node, and is given up after a minute.
    void close() {
        const Patience patience(patience_.group(), 1min);
        run(patience, "the end of NCCL", [&] { return ncclCommFinalize(comm_); });
        apart(std::exchange(comm_, nullptr), ncclCommDestroy, 1min);
    }

    /// Calls end(comm) on a thread of its own, which is not waited for any longer than that.
    static void apart(ncclComm_t comm, ncclResult_t (*end)(ncclComm_t), std::chrono::seconds longest) {
        std::promise<void> ended;
        const auto future = ended.get_future();
        std::thread([comm, end, ended = std::move(ended)]() mutable {
            end(comm);
            ended.set_value();
        }).detach();
        future.wait_for(longest);
    }

    const int device_ = current_device();
    const CudaStream stream_ = make_cuda_stream();
    const CudaEvent submitted_ = make_cuda_event();
    std::mutex mutex_; ///< guards the three below, and every call of NCCL's
    ncclComm_t comm_ = nullptr;
    std::deque<std::shared_ptr<Operation>> under_way_; ///< oldest first
    std::string problem_;                              ///< why the communicator was ended
    std::jthread watch_;
};

} // namespace

std::string why_not_nccl(const Communicator& group) {
    const auto gpus = group.gather(accelerator_identity(), 0);
    const bool share = std::set<std::string>(gpus.begin(), gpus.end()).size() < gpus.size();
    return group.broadcast(share ? "some of its ranks share a GPU (start one rank a GPU)" : "", 0);
}

std::unique_ptr<ArrayCommunicator> make_nccl_arrays(const Communicator& group, const Patience& patience,
                                                    int most_blocks) {
    return std::make_unique<NcclArrays>(group, patience, most_blocks);
}

} // namespace lolcats
