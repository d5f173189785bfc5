#include "tests/comm/array_forms.hpp"
#include "tests/support/errors.hpp"

#include <cmath>
#include <numeric>

namespace lolcats {

/// Work on the compute stream that nobody waits for before the array is handed over.
void fill(const Vector<float>& array, float value) {
    Kokkos::parallel_for(
        "fill", Kokkos::RangePolicy<Execution>(0, array.size()), KOKKOS_LAMBDA(std::size_t i) { array(i) = value; });
}
void add_one(const Vector<float>& array) {
    Kokkos::parallel_for(
        "add_one", Kokkos::RangePolicy<Execution>(0, array.size()), KOKKOS_LAMBDA(std::size_t i) { array(i) += 1; });
}

namespace {

class ArrayCommunicatorTest : public ArrayFormTest {};
LOLCATS_TEST_IN_BOTH_FORMS(ArrayCommunicatorTest);

template <class T>
void check_sum(ArrayCommunicator& group, std::size_t count) {
    std::vector<T> values(count);
    std::iota(values.begin(), values.end(), static_cast<T>(group.rank()));
    const Vector<T> array = on_device(values);
    group.sum(array.data(), count)->wait();
    const auto n = static_cast<T>(group.size());
    std::vector<T> expected(count);
    for (std::size_t i = 0; i < count; ++i) expected[i] = n * static_cast<T>(i) + n * (n - 1) / 2;
    EXPECT_EQ(on_host(array), expected) << count;
}

TEST_P(ArrayCommunicatorTest, SumsFloatsAndDoubles) {
    const auto group = make_group();
    for (const std::size_t count : {0U, 1U, 1000U, 100003U}) {
        check_sum<float>(*group, count);
        check_sum<double>(*group, count);
    }
}

TEST_P(ArrayCommunicatorTest, ASumHasTheSameBitsOnAllRanks) {
    const auto group = make_group();
    std::vector<double> values(70001);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i * (group->rank() + 1)));
    const Vector<double> array = on_device(values);
    group->sum(array.data(), array.size())->wait();
    const auto mine = on_host(array);
    auto first = mine;
    world.broadcast(first.data(), first.size() * sizeof(double), 0);
    EXPECT_EQ(mine, first);
}

TEST_P(ArrayCommunicatorTest, BroadcastsFromEveryRoot) {
    const auto group = make_group();
    for (int root = 0; root < group->size(); ++root) {
        for (const std::size_t count : {1U, 777U, 300001U}) {
            std::vector<unsigned char> values(count, 255);
            if (group->rank() == root)
                for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<unsigned char>(i % 251);
            const Vector<unsigned char> array = on_device(values);
            group->broadcast(array.data(), count, root)->wait();
            for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<unsigned char>(i % 251);
            EXPECT_EQ(on_host(array), values) << "root " << root << ", " << count << " bytes";
        }
    }
}

TEST_P(ArrayCommunicatorTest, SeveralAtOnceEndInAnyOrder) {
    const auto group = make_group();
    const Vector<float> sum = on_device(std::vector<float>(5000, 1));
    const Vector<float> copy = on_device(std::vector<float>(5000, static_cast<float>(group->rank())));
    const auto first = group->sum(sum.data(), sum.size());
    const auto second = group->broadcast(copy.data(), copy.size() * sizeof(float), group->size() - 1);
    second->wait();
    first->wait();
    first->wait();
    EXPECT_EQ(on_host(sum), std::vector<float>(5000, static_cast<float>(group->size())));
    EXPECT_EQ(on_host(copy), std::vector<float>(5000, static_cast<float>(group->size() - 1)));
}

TEST_P(ArrayCommunicatorTest, MessagesKeepTheirOrder) {
    const auto group = make_group();
    if (group->size() == 1) GTEST_SKIP() << "one rank has nobody to send to";
    const int last = group->size() - 1;
    for (int i = 0; i < 20; ++i) {
        const std::size_t count = 1 + static_cast<std::size_t>(i) * 7919;
        const Vector<float> array(uninitialized("message"), count);
        if (group->rank() == 0) {
            fill(array, static_cast<float>(i));
            group->send(array.data(), count * sizeof(float), last)->wait();
        } else if (group->rank() == last) {
            group->receive(array.data(), count * sizeof(float), 0)->wait();
            add_one(array);
            EXPECT_EQ(on_host(array), std::vector<float>(count, static_cast<float>(i) + 1));
        }
    }
}

TEST_P(ArrayCommunicatorTest, PairsExchange) {
    const auto group = make_group();
    const int other = group->rank() ^ 1;
    if (other >= group->size()) GTEST_SKIP() << "no partner";
    const std::size_t bytes = 200000 * sizeof(float);
    const Vector<float> mine = on_device(std::vector<float>(200000, static_cast<float>(group->rank())));
    const Vector<float> theirs(uninitialized("theirs"), mine.size());
    const bool sends_first = group->rank() < other;
    auto first = sends_first ? group->send(mine.data(), bytes, other) : group->receive(theirs.data(), bytes, other);
    auto second = sends_first ? group->receive(theirs.data(), bytes, other) : group->send(mine.data(), bytes, other);
    first->wait();
    second->wait();
    EXPECT_EQ(on_host(theirs), std::vector<float>(200000, static_cast<float>(other)));
}

TEST_P(ArrayCommunicatorTest, OperationsComeBetweenWorkBeforeAndAfter) {
    const auto group = make_group();
    const Vector<float> array(uninitialized("array"), 1 << 20);
    for (int turn = 0; turn < 5; ++turn) {
        fill(array, static_cast<float>(turn + 1));
        group->sum(array.data(), array.size())->wait();
        add_one(array);
    }
    EXPECT_EQ(on_host(array), std::vector<float>(1 << 20, 5.0F * static_cast<float>(group->size()) + 1));
}

TEST_P(ArrayCommunicatorTest, GroupsAreApart) {
    const Communicator half = world.split(world.rank() % 2, world.rank());
    const auto all = make_group();
    const auto part = make_array_communicator(half, transport(), "every second rank");
    const Vector<float> one = on_device(std::vector<float>(1000, 1));
    const Vector<float> two = on_device(std::vector<float>(1000, 1));
    const auto of_all = all->sum(one.data(), one.size());
    const auto of_part = part->sum(two.data(), two.size());
    of_part->wait();
    of_all->wait();
    EXPECT_EQ(on_host(one), std::vector<float>(1000, static_cast<float>(world.size())));
    EXPECT_EQ(on_host(two), std::vector<float>(1000, static_cast<float>(half.size())));
    EXPECT_EQ(part->control().size(), half.size());
}

/// The watch over NCCL ends the process: tests/src/failing_program.cpp shows that.
TEST(ArrayPatienceTest, ARankThatNeverComesIsAnErrorThatNamesTheGroup) {
    const Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "one rank waits for nobody";
    const ArrayTransport transport{ArrayTransport::Form::mpi, std::chrono::milliseconds(200)};
    const auto group = make_array_communicator(world, transport, "ranks of the test");
    if (group->rank() == 0) {
        const Vector<float> array("array", 8);
        const auto message = group->receive(array.data(), 8 * sizeof(float), 1);
        const std::string text = test::message_of([&] { message->wait(); });
        EXPECT_TRUE(text.starts_with("ranks of the test: a message from another rank was not over ")) << text;
        test::expect_contains(text, "--communication-timeout");
    }
    world.barrier();
}

TEST(ArrayPatienceTest, AMessageOfAnotherLengthIsAnError) {
    const Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "one rank has nobody to send to";
    const auto group = make_array_communicator(world, {ArrayTransport::Form::mpi, std::chrono::seconds(60)}, "ranks");
    const Vector<float> array("array", 8);
    if (group->rank() == 0) group->send(array.data(), 4 * sizeof(float), 1)->wait();
    if (group->rank() == 1) {
        const auto message = group->receive(array.data(), 8 * sizeof(float), 0);
        EXPECT_THROW(message->wait(), Error);
    }
}

TEST(ArrayFormsTest, WhatCannotBeIsRefused) {
    const Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "one rank needs no transport";
    if (!why_not_nccl(world).empty()) {
        const ArrayTransport transport{ArrayTransport::Form::nccl, std::chrono::seconds(60)};
        EXPECT_THROW((void)make_array_communicator(world, transport, "ranks"), Error);
    }
    const auto group = make_array_communicator(world, {}, "ranks");
    EXPECT_STREQ(group->name(), why_not_nccl(world).empty() ? "NCCL" : "MPI");
}

} // namespace
} // namespace lolcats
