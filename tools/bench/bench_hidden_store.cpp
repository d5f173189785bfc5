/// Write bandwidth of the hidden-state store against raw parallel writes of the same bytes to the same disk in the same
/// run:  mpirun -n RANKS bench_hidden_store DIRECTORY [SEQUENCES [LENGTH [WIDTH [ROUNDS]]]]
///
/// Both sides write the bfloat16 states of every sequence, each rank its own, and end with the bytes on the disk
/// (fsync). The raw file is reserved first, as the store is, and its bytes come converted: it is what the disk can do.
/// The store side converts from float, looks for values that are not finite, computes checksums and sets done marks.
/// It hands each sequence to the disk at once, so the raw file is also written in that way, for comparison.
/// Rounds alternate, and the medians count.
#include "io/file.hpp"
#include "io/hidden_store.hpp"
#include "io/write_behind.hpp"
#include "lolcats/error.hpp"
#include "src/comm/communicator.hpp"
#include "src/comm/mesh.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace lolcats {
namespace {

using Clock = std::chrono::steady_clock;

struct Bench {
    const Communicator& world;
    std::filesystem::path directory;
    io::HiddenStoreInfo info;

    [[nodiscard]] std::size_t elements() const { return static_cast<std::size_t>(info.length * info.width); }
    [[nodiscard]] std::size_t sequence_bytes() const { return elements() * sizeof(BFloat16); }
    [[nodiscard]] double bytes() const { return static_cast<double>(sequence_bytes()) * info.sequences; }
    [[nodiscard]] Range mine() const { return share(static_cast<int>(info.sequences), world.size(), world.rank()); }
};

/// Seconds of `work` on the slowest rank.
template <class Work>
double timed(const Communicator& world, Work&& work) {
    world.barrier();
    const auto start = Clock::now();
    work();
    double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    world.max(&seconds, 1);
    return seconds;
}

void write_all(int fd, const std::byte* data, std::size_t bytes, off_t offset) {
    while (bytes > 0) {
        const ssize_t written = ::pwrite(fd, data, bytes, offset);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail("raw write: {}", std::strerror(errno));
        data += written;
        offset += written;
        bytes -= static_cast<std::size_t>(written);
    }
}

/// `behind`: the disk is told of each sequence at once, as the store does, instead of at the end.
double raw_round(const Bench& bench, const std::vector<BFloat16>& states, bool behind) {
    const auto path = bench.directory / "raw.bin";
    if (bench.world.rank() == 0) std::filesystem::remove(path);
    const double seconds = timed(bench.world, [&] {
        if (bench.world.rank() == 0) {
            const int fd = ::open(path.c_str(), O_CREAT | O_RDWR, 0644);
            if (fd < 0) fail("{}: {}", path.string(), std::strerror(errno));
            static_cast<void>(::fallocate(fd, 0, 0, static_cast<off_t>(bench.bytes()))); // a hint
            ::close(fd);
        }
        bench.world.barrier();
        const int fd = ::open(path.c_str(), O_WRONLY);
        if (fd < 0) fail("{}: {}", path.string(), std::strerror(errno));
        const io::WriteBehind disk(behind ? path : std::filesystem::path());
        for (int i = bench.mine().begin; i < bench.mine().end; ++i) {
            const std::size_t offset = bench.sequence_bytes() * i;
            write_all(fd, reinterpret_cast<const std::byte*>(states.data()), bench.sequence_bytes(),
                      static_cast<off_t>(offset));
            disk.start(offset, bench.sequence_bytes());
        }
        if (::fsync(fd) != 0) fail("{}: {}", path.string(), std::strerror(errno));
        ::close(fd);
    });
    if (bench.world.rank() == 0) std::filesystem::remove(path);
    return seconds;
}

double store_round(const Bench& bench, const std::vector<float>& states) {
    const auto path = bench.directory / "block_01.h5";
    if (bench.world.rank() == 0) std::filesystem::remove(path);
    const double seconds = timed(bench.world, [&] {
        io::HiddenStoreWriter store(path, bench.info, bench.world.get());
        for (int i = bench.mine().begin; i < bench.mine().end; ++i) store.write(i, states.data());
        store.close();
    });
    if (bench.world.rank() == 0) std::filesystem::remove(path);
    return seconds;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void run(const Bench& bench, int rounds) {
    std::vector<float> states(bench.elements());
    std::vector<BFloat16> rounded(bench.elements());
    for (std::size_t i = 0; i < states.size(); ++i) {
        states[i] = static_cast<float>((i * 2654435761U) % 65536) / 32768.0F - 1.0F;
        rounded[i] = to_bfloat16(states[i]);
    }
    std::vector<double> raw, behind, store;
    for (int round = 0; round < rounds; ++round) {
        raw.push_back(raw_round(bench, rounded, false));
        behind.push_back(raw_round(bench, rounded, true));
        store.push_back(store_round(bench, states));
    }
    if (bench.world.rank() != 0) return;
    const auto rate = [&](double seconds) { return bench.bytes() / seconds / 1e6; };
    for (int round = 0; round < rounds; ++round)
        fmt::print("round {}: raw {:.0f} MB/s, raw written behind {:.0f} MB/s, store {:.0f} MB/s\n", round,
                   rate(raw[round]), rate(behind[round]), rate(store[round]));
    fmt::print("{} ranks, {:.0f} MB: raw {:.0f} MB/s, raw written behind {:.0f} MB/s, store {:.0f} MB/s; store to raw "
               "{:.3f}, to raw written behind {:.3f}\n",
               bench.world.size(), bench.bytes() / 1e6, rate(median(raw)), rate(median(behind)), rate(median(store)),
               median(raw) / median(store), median(behind) / median(store));
}

} // namespace
} // namespace lolcats

int main(int argc, char** argv) {
    using namespace lolcats;
    MPI_Init(&argc, &argv);
    int status = 0;
    try {
        const Communicator world = Communicator::world();
        if (argc < 2) fail("usage: bench_hidden_store DIRECTORY [SEQUENCES [LENGTH [WIDTH [ROUNDS]]]]");
        const auto number = [&](int i, int otherwise) { return argc > i ? std::stoi(argv[i]) : otherwise; };
        io::HiddenStoreInfo info;
        info.sequences = number(2, 64);
        info.length = number(3, 1024);
        info.width = number(4, 4096);
        info.block = info.layer = 1;
        run({world, argv[1], info}, number(5, 5));
    } catch (const std::exception& error) {
        fmt::print(stderr, "bench_hidden_store: error: {}\n", error.what());
        status = 1;
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    return status;
}
