#pragma once
/// Vectors of the compiler's own kind, as wide as the processor's. Where there is a GPU no tile is computed on the
/// host, and nvcc need not read them.
#ifndef __CUDACC__
#include <cstdint>
#include <type_traits>
#include <utility>

namespace lolcats::tile::host {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class Real>
struct Simd {
    static constexpr int width = vector_bytes / static_cast<int>(sizeof(Real));
    using Lanes __attribute__((vector_size(vector_bytes))) = Real;
    using Bits __attribute__((vector_size(vector_bytes))) =
        std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
    /// The same, anywhere in memory.
    using Stored __attribute__((vector_size(vector_bytes), aligned(alignof(Real)), may_alias)) = Real;
    static Lanes load(const Real* data) { return *reinterpret_cast<const Stored*>(data); }
    /// The first `count`, zero after them.
    static Lanes load(const Real* data, int count) {
        Lanes lanes{};
        for (int i = 0; i < count; ++i) lanes[i] = data[i];
        return lanes;
    }
    static void store(const Lanes& lanes, Real* data) { *reinterpret_cast<Stored*>(data) = lanes; }
    static void store(const Lanes& lanes, Real* data, int count) {
        for (int i = 0; i < count; ++i) data[i] = lanes[i];
    }
    /// All lanes combined, by halves.
    template <class Combine>
    static Real reduce(Lanes lanes, const Combine& combine) {
        return reduce_by<width / 2>(lanes, combine);
    }

private:
    template <int half, class Combine>
    static Real reduce_by(Lanes lanes, const Combine& combine) {
        if constexpr (half == 0) {
            return lanes[0];
        } else {
            const Lanes exchanged = exchange<half>(lanes, std::make_integer_sequence<int, width>());
            return reduce_by<half / 2>(combine(lanes, exchanged), combine);
        }
    }
    /// Each lane from the one `half` lanes away.
    template <int half, int... lane>
    static Lanes exchange(const Lanes& lanes, std::integer_sequence<int, lane...>) {
        return __builtin_shufflevector(lanes, lanes, (lane ^ half)...);
    }
};

} // namespace lolcats::tile::host

#endif
