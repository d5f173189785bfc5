#pragma once
/// Element types of stored tensors and the conversions between them.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lolcats/bfloat16.hpp"

namespace lolcats::io {

enum class DType { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

using Shape = std::vector<std::int64_t>;

/// Bytes of one element.
std::size_t size_of(DType dtype);

/// The name safetensors files use: "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL".
std::string_view name_of(DType dtype);

/// The type with this safetensors name, if there is one.
std::optional<DType> dtype_named(std::string_view name);

/// True for the types that convert_elements() reads.
bool is_floating(DType dtype);

/// "[2, 3]".
std::string to_string(const Shape& shape);

/// Product of the extents. An Error (naming `what`) if one is negative or the product overflows.
std::int64_t element_count(const Shape& shape, std::string_view what);

/// Rounds to nearest, ties to even, in one rounding step (not by way of float).
BFloat16 double_to_bfloat16(double x);

/// Converts `count` little-endian elements of a floating type to T (float, double or BFloat16). `source` need not be
/// aligned. An Error if `dtype` is not floating.
template <class T>
void convert_elements(DType dtype, const void* source, std::size_t count, T* out);

/// True if no element is infinite or NaN.
bool all_finite(const float* values, std::size_t count);
bool all_finite(const BFloat16* values, std::size_t count);

} // namespace lolcats::io
