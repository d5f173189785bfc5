#include "lolcats/error.hpp"
#include "src/comm/communicator.hpp"
#include "src/comm/error_latch.hpp"
#include "src/comm/pieces.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>

namespace lolcats {
namespace {

/// Sum of 0 .. n-1.
double triangle(int n) {
    return n * (n - 1) / 2.0;
}

TEST(PiecesTest, CoverTheWholeOnce) {
    for (std::size_t count : {0U, 1U, 6U, 7U, 8U, 21U}) {
        std::size_t next = 0;
        for_pieces(count, 7, [&](std::size_t offset, int size) {
            EXPECT_EQ(offset, next);
            EXPECT_GE(size, 1);
            EXPECT_LE(size, 7);
            next += static_cast<std::size_t>(size);
        });
        EXPECT_EQ(next, count);
    }
}

TEST(CommunicatorTest, Reductions) {
    const Communicator world = Communicator::world();
    const int n = world.size();
    std::vector<double> values = {world.rank() + 0.0, world.rank() * 2.0, 1};
    world.sum(values.data(), values.size());
    EXPECT_EQ(values, (std::vector<double>{triangle(n), 2 * triangle(n), n + 0.0}));
    std::int64_t big = (std::int64_t{1} << 40) + world.rank();
    std::int64_t least = big;
    std::int64_t total = big;
    world.sum(&total, 1);
    world.max(&big, 1);
    world.min(&least, 1);
    EXPECT_EQ(total, n * (std::int64_t{1} << 40) + static_cast<std::int64_t>(triangle(n)));
    EXPECT_EQ(big, (std::int64_t{1} << 40) + n - 1);
    EXPECT_EQ(least, std::int64_t{1} << 40);
    double most = -1.0 - world.rank();
    world.max(&most, 1);
    EXPECT_EQ(most, -1);
    world.sum(static_cast<double*>(nullptr), 0);
}

TEST(CommunicatorTest, BroadcastFromEveryRoot) {
    const Communicator world = Communicator::world();
    for (int root = 0; root < world.size(); ++root) {
        std::vector<int> values(1000, world.rank() == root ? root + 7 : -1);
        world.broadcast(values.data(), values.size() * sizeof(int), root);
        EXPECT_EQ(values, std::vector<int>(1000, root + 7));
        const std::string text = world.rank() == root ? std::string("from\0", 5) + std::to_string(root) : "other";
        EXPECT_EQ(world.broadcast(text, root), std::string("from\0", 5) + std::to_string(root));
    }
    EXPECT_EQ(world.broadcast(std::string(), 0), "");
}

TEST(CommunicatorTest, GatherKeepsOrderAndLengths) {
    const Communicator world = Communicator::world();
    const int root = world.size() - 1;
    const auto text_of = [](int rank) {
        return std::string(static_cast<std::size_t>(3 * rank), static_cast<char>('a' + rank));
    };
    const auto texts = world.gather(text_of(world.rank()), root);
    if (world.rank() != root) {
        EXPECT_TRUE(texts.empty());
        return;
    }
    ASSERT_EQ(texts.size(), static_cast<std::size_t>(world.size()));
    for (int rank = 0; rank < world.size(); ++rank) EXPECT_EQ(texts[static_cast<std::size_t>(rank)], text_of(rank));
}

TEST(CommunicatorTest, SplitAndDuplicate) {
    const Communicator world = Communicator::world();
    const Communicator half = world.split(world.rank() % 2, -world.rank());
    EXPECT_EQ(half.size(), (world.size() + 1 - world.rank() % 2) / 2);
    EXPECT_EQ(half.rank(), (half.size() - 1) - world.rank() / 2) << "ordered by key";
    Communicator copy = world.duplicate();
    EXPECT_NE(copy.get(), world.get());
    EXPECT_EQ(copy.rank(), world.rank());
    Communicator moved = std::move(copy);
    EXPECT_EQ(copy.get(), MPI_COMM_NULL); // NOLINT: the state after a move is what is tested
    moved = world.duplicate();
    moved.barrier();
    EXPECT_EQ(world.split_by_node().size(), world.size());
}

/// 400 kB, that differ from byte to byte and from rank to rank.
std::vector<std::byte> bytes_of_rank(int rank) {
    std::vector<std::byte> bytes(400000);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 251 + rank);
    return bytes;
}

TEST(CommunicatorTest, NonBlockingMessagesGoRound) {
    const Communicator world = Communicator::world();
    const int right = (world.rank() + 1) % world.size();
    const int left = (world.rank() + world.size() - 1) % world.size();
    const std::vector<std::byte> mine = bytes_of_rank(world.rank());
    std::vector<std::byte> theirs(mine.size());
    Request receive = world.ireceive(theirs.data(), theirs.size(), left, 5);
    Request send = world.issend(mine.data(), mine.size(), right, 5);
    Request moved = std::move(receive);
    moved.wait();
    send.wait();
    send.wait();
    EXPECT_EQ(theirs, bytes_of_rank(left));
}

TEST(CommunicatorTest, ASynchronousSendWaitsForItsReceiver) {
    using namespace std::chrono_literals;
    const Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "needs two ranks";
    auto value = std::byte{7};
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    if (world.rank() == 0) {
        world.issend(&value, 1, 1, 3).wait();
        EXPECT_GT(std::chrono::steady_clock::now() - start, 200ms);
    } else if (world.rank() == 1) {
        std::this_thread::sleep_for(300ms);
        value = {};
        world.ireceive(&value, 1, 0, 3).wait();
        EXPECT_EQ(value, std::byte{7});
    }
}

TEST(CommunicatorTest, BlockingMessagesGoDownTheLine) {
    const Communicator world = Communicator::world();
    std::vector<float> values(50000, world.rank() == 0 ? 1.0F : 0.0F);
    if (world.rank() > 0) world.receive(values.data(), values.size(), world.rank() - 1, 1);
    for (float& value : values) value += 1;
    if (world.rank() + 1 < world.size()) world.send(values.data(), values.size(), world.rank() + 1, 1);
    EXPECT_EQ(values, std::vector<float>(50000, 2.0F + static_cast<float>(world.rank())));
}

TEST(CommunicatorTest, ShortMessagesAndBadRanksAreErrors) {
    const Communicator world = Communicator::world();
    std::vector<float> values(8);
    std::vector<std::byte> bytes(8), other_bytes(8);
    Request receive = world.ireceive(bytes.data(), 8, world.rank(), 9);
    Request send = world.issend(other_bytes.data(), 4, world.rank(), 9);
    EXPECT_THROW(receive.wait(), Error);
    send.wait();
    if (world.rank() + 1 < world.size()) world.send(values.data(), 4, world.rank() + 1, 10);
    if (world.rank() > 0) {
        EXPECT_THROW(world.receive(values.data(), 8, world.rank() - 1, 10), Error);
    }
    EXPECT_THROW(world.send(values.data(), 8, world.size(), 1), Error);
    EXPECT_THROW((void)world.broadcast(std::string("x"), world.size()), Error);
}

TEST(CommunicatorTest, ARequestGivenUpDoesNotHang) {
    const Communicator world = Communicator::world();
    std::vector<std::byte> bytes(8);
    { const Request never = world.ireceive(bytes.data(), bytes.size(), world.rank(), 77); }
    world.barrier();
}

TEST(ErrorLatchTest, OneRankOfANodeClaimsIt) {
    const Communicator world = Communicator::world();
    const Communicator node = world.split_by_node();
    ErrorLatch latch(node);
    std::int64_t claims = latch.claim() ? 1 : 0;
    EXPECT_FALSE(latch.claim());
    node.sum(&claims, 1);
    EXPECT_EQ(claims, 1);
}

} // namespace
} // namespace lolcats
