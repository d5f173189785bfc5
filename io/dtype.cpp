#include "io/dtype.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

struct DTypeEntry {
    std::string_view name;
    std::size_t size;
    bool floating;
};

/// In the order of the enumerators.
constexpr std::array<DTypeEntry, 10> dtypes = {{{"F64", 8, true},
                                                {"F32", 4, true},
                                                {"F16", 2, true},
                                                {"BF16", 2, true},
                                                {"I64", 8, false},
                                                {"I32", 4, false},
                                                {"I16", 2, false},
                                                {"I8", 1, false},
                                                {"U8", 1, false},
                                                {"BOOL", 1, false}}};

const DTypeEntry& entry(DType dtype) {
    return dtypes.at(static_cast<std::size_t>(dtype));
}

/// IEEE half precision to single, exact. Written with selections instead of branches, so that loops over it are
/// vectorised; and without arithmetic on subnormal floats, so that it stays right where those are flushed to zero.
inline float widen_half(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000U) << 16;
    const std::uint32_t magnitude = (half & 0x7fffU) << 13;
    const std::uint32_t exponent = magnitude & 0x0f800000U;
    const std::uint32_t normal = magnitude + (112U << 23);
    const std::uint32_t special = magnitude + (224U << 23);
    constexpr std::uint32_t one_step_up = 113U << 23; // 2^-14, the unit that half's subnormals are fractions of
    const float fraction = std::bit_cast<float>(magnitude + one_step_up) - std::bit_cast<float>(one_step_up);
    const auto subnormal = std::bit_cast<std::uint32_t>(fraction);
    const std::uint32_t finite = exponent == 0 ? subnormal : normal;
    return std::bit_cast<float>((exponent == 0x0f800000U ? special : finite) | sign);
}

template <class In, class Out, class Convert>
void convert_each(const void* source, std::size_t count, Out* __restrict out, Convert convert) {
    const auto* __restrict bytes = static_cast<const std::byte*>(source);
    for (std::size_t i = 0; i < count; ++i) {
        In value;
        std::memcpy(&value, bytes + i * sizeof(In), sizeof(In)); // the source may be unaligned
        out[i] = convert(value);
    }
}

inline void store(float x, float& out) {
    out = x;
}
inline void store(float x, double& out) {
    out = x;
}
inline void store(float x, BFloat16& out) {
    out = to_bfloat16(x);
}
inline void store(double x, float& out) {
    out = static_cast<float>(x);
}
inline void store(double x, double& out) {
    out = x;
}
inline void store(double x, BFloat16& out) {
    out = double_to_bfloat16(x);
}

template <class Out, class In>
inline Out stored(In x) {
    Out out;
    store(x, out);
    return out;
}

} // namespace

std::size_t size_of(DType dtype) {
    return entry(dtype).size;
}
std::string_view name_of(DType dtype) {
    return entry(dtype).name;
}
bool is_floating(DType dtype) {
    return entry(dtype).floating;
}

std::optional<DType> dtype_named(std::string_view name) {
    for (std::size_t i = 0; i < dtypes.size(); ++i) {
        if (dtypes[i].name == name) return static_cast<DType>(i);
    }
    return std::nullopt;
}

std::string to_string(const Shape& shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::int64_t element_count(const Shape& shape, std::string_view what) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) {
        if (extent < 0) fail("{}: negative extent in shape {}", what, to_string(shape));
        if (__builtin_mul_overflow(count, extent, &count)) fail("{}: shape {} is too large", what, to_string(shape));
    }
    return count;
}

BFloat16 double_to_bfloat16(double x) {
    const auto single = static_cast<float>(x);
    if (std::isnan(x) || static_cast<double>(single) == x) return to_bfloat16(single);
    // Round to odd: truncate, then set the last bit. The second rounding then sees on which side of a tie x lies.
    auto bits = std::bit_cast<std::uint32_t>(single);
    if (std::fabs(static_cast<double>(single)) > std::fabs(x)) --bits;
    return to_bfloat16(std::bit_cast<float>(bits | 1U));
}

template <class T>
void convert_elements(DType dtype, const void* source, std::size_t count, T* out) {
    switch (dtype) {
    case DType::f64:
        return convert_each<double>(source, count, out, [](double x) { return stored<T>(x); });
    case DType::f32:
        return convert_each<float>(source, count, out, [](float x) { return stored<T>(x); });
    case DType::f16:
        return convert_each<std::uint16_t>(source, count, out,
                                           [](std::uint16_t x) { return stored<T>(widen_half(x)); });
    case DType::bf16:
        if constexpr (std::is_same_v<T, BFloat16>) {
            return convert_each<BFloat16>(source, count, out, [](BFloat16 x) { return x; });
        } else {
            return convert_each<BFloat16>(source, count, out, [](BFloat16 x) { return stored<T>(to_float(x)); });
        }
    default:
        fail("elements of type {} are not floating-point numbers", name_of(dtype));
    }
}

template void convert_elements<float>(DType, const void*, std::size_t, float*);
template void convert_elements<double>(DType, const void*, std::size_t, double*);
template void convert_elements<BFloat16>(DType, const void*, std::size_t, BFloat16*);

bool all_finite(const float* values, std::size_t count) {
    std::uint32_t bad = 0;
    for (std::size_t i = 0; i < count; ++i) {
        bad |= static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000U) == 0x7f800000U);
    }
    return bad == 0;
}

bool all_finite(const BFloat16* values, std::size_t count) {
    std::uint16_t bad = 0;
    for (std::size_t i = 0; i < count; ++i) bad |= static_cast<std::uint16_t>((values[i].bits & 0x7f80U) == 0x7f80U);
    return bad == 0;
}

} // namespace lolcats::io
