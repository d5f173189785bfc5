#include "src/comm/stage_link.hpp"
#include "src/train/pipeline_schedule.hpp"
#include "tests/comm/array_forms.hpp"

#include <thread>

namespace lolcats {

/// x += value, on the compute stream.
void add(const Matrix<float>& x, float value) {
    Kokkos::parallel_for(
        "add", Kokkos::RangePolicy<Execution>(0, x.size()), KOKKOS_LAMBDA(std::size_t i) { x.data()[i] += value; });
}

namespace {

using namespace std::chrono_literals;

class StageLinkTest : public ArrayFormTest {
protected:
    static constexpr int rows = 301;
    static constexpr int columns = 257; // 300 kB: no transport buffers such a message
    Matrix<float> x{"x", rows, columns};

    static void expect_filled(const Matrix<float>& matrix, float value) {
        const Vector<float> all(matrix.data(), matrix.size());
        EXPECT_EQ(on_host(all), std::vector<float>(matrix.size(), value));
    }
};
LOLCATS_TEST_IN_BOTH_FORMS(StageLinkTest);

/// What every stage of the 1F1B schedule sends and receives, with the sums that must come of it.
TEST_P(StageLinkTest, OneForwardOneBackwardReachesEveryStage) {
    StageLink link(world, transport(), Flow::both);
    for (const int micro_batches : {1, 3, 9}) {
        const auto forward = [&](int i) {
            if (link.is_first())
                Kokkos::deep_copy(x, static_cast<float>(100 * i));
            else
                link.receive_forward(x);
            add(x, 1);
            if (!link.is_last()) return link.send_forward(x);
            expect_filled(x, static_cast<float>(100 * i + link.stages()));
        };
        const auto backward = [&](int i) {
            if (link.is_last())
                Kokkos::deep_copy(x, static_cast<float>(-100 * i));
            else
                link.receive_backward(x);
            add(x, -1);
            if (!link.is_first()) return link.send_backward(x);
            expect_filled(x, static_cast<float>(-100 * i - link.stages()));
        };
        run_one_forward_one_backward(link.stage(), link.stages(), micro_batches, forward, backward);
        link.flush();
    }
}

/// Neighbours that both send before either receives: a transport whose sends wait for the receiver, one way after the
/// other, stands still here.
TEST_P(StageLinkTest, NeighboursMaySendToEachOtherAtOnce) {
    StageLink link(world, transport(), Flow::both);
    for (int turn = 0; turn < 3 * static_cast<int>(StageLink::most_under_way); ++turn) {
        Kokkos::deep_copy(x, static_cast<float>(10 * turn + link.stage()));
        if (!link.is_last()) link.send_forward(x);
        if (!link.is_first()) link.send_backward(x);
        Kokkos::deep_copy(Execution(), x, -1.0F); // what was sent is a copy
        if (!link.is_first()) {
            link.receive_forward(x);
            expect_filled(x, static_cast<float>(10 * turn + link.stage() - 1));
        }
        if (!link.is_last()) {
            link.receive_backward(x);
            expect_filled(x, static_cast<float>(10 * turn + link.stage() + 1));
        }
    }
    link.flush();
}

TEST_P(StageLinkTest, AStageRunsAheadByABoundedNumberOfMessages) {
    StageLink link(world, transport(), Flow::forward);
    if (link.stages() == 1) GTEST_SKIP() << "one stage sends to nobody";
    const Matrix<float> large("large", runs_on_host ? rows : 300 * rows, columns); // NCCL buffers some MB a channel
    constexpr auto pause = 500ms;
    constexpr int messages = static_cast<int>(StageLink::most_under_way) + 1;
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] { return std::chrono::steady_clock::now() - start; };
    if (link.stage() == 0) {
        for (int i = 0; i + 1 < messages; ++i) link.send_forward(large);
        EXPECT_LT(elapsed(), pause / 2) << "so many are sent without waiting";
        link.send_forward(large);
        EXPECT_GT(elapsed(), pause / 2) << "one more waits until the first is taken";
        EXPECT_EQ(link.bytes_sent(), messages * large.size() * sizeof(float));
    } else if (link.stage() == 1) {
        std::this_thread::sleep_for(pause);
        for (int i = 0; i < messages; ++i) link.receive_forward(large);
    }
    link.flush();
}

/// The last micro-batch of a batch may be smaller, and an evaluation's larger than those before it.
TEST_P(StageLinkTest, MessagesMayDifferInSize) {
    StageLink link(world, transport(), Flow::forward);
    for (const int size : {7, 301, 1, 100, 301, 2, 3}) {
        const Matrix<float> part = first_rows(x, size);
        if (link.is_first())
            Kokkos::deep_copy(part, static_cast<float>(size));
        else
            link.receive_forward(part);
        expect_filled(part, static_cast<float>(size));
        if (!link.is_last()) link.send_forward(part);
    }
    link.flush();
}

/// Two bytes a number; what is a bf16 value arrives as it was.
TEST_P(StageLinkTest, ActivationsMayTravelInBf16) {
    StageLink link(world, transport(), Flow::forward, Wire::bf16);
    for (const float value : {1.0F, -0.375F, 3.140625F, 1.0F + 0x1p-10F}) {
        const float rounded = to_float(to_bfloat16(value));
        if (link.is_first())
            Kokkos::deep_copy(x, value);
        else
            link.receive_forward(x);
        expect_filled(x, link.is_first() ? value : rounded);
        if (!link.is_last()) link.send_forward(x);
    }
    link.flush();
    EXPECT_EQ(link.bytes_sent(), link.is_last() ? 0 : 4 * x.size() * 2);
}

TEST_P(StageLinkTest, GradientsTravelInFloat) {
    StageLink link(world, transport(), Flow::both, Wire::bf16);
    constexpr float value = 1.0F + 0x1p-20F;
    Kokkos::deep_copy(x, link.is_last() ? value : 0.0F);
    if (!link.is_last()) link.receive_backward(x);
    expect_filled(x, value);
    if (!link.is_first()) link.send_backward(x);
    link.flush();
}

TEST_P(StageLinkTest, AWordTravelsBehindTheMessages) {
    StageLink link(world, transport(), Flow::forward);
    for (const bool word : {true, false, true}) {
        if (!link.is_first()) link.receive_forward(x);
        if (!link.is_last()) link.send_forward(x);
        EXPECT_EQ(link.pass_on(link.is_first() ? word : !word), word);
    }
    link.flush();
}

} // namespace
} // namespace lolcats
