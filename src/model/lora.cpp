#include "src/model/lora.hpp"

#include "kernels/dropout.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"

namespace lolcats {

namespace {

/// The first rows and columns of a scratch array, as a dense array of its own.
template <class Real>
Matrix<Real> dense(const Matrix<Real>& scratch, std::size_t rows, std::size_t columns) {
    return Matrix<Real>(scratch.data(), rows, columns);
}

template <class Real>
bool drops(const LoraContext<Real>& context) {
    return context.form.dropout > 0 && !context.streams.empty();
}

/// body(rows of x, stream, rows of out) for each sequence.
template <class Real, class Body>
void for_each_sequence(const LoraContext<Real>& context, const Matrix<Real>& x, const Matrix<Real>& out,
                       const Body& body) {
    for (std::size_t i = 0; i < context.streams.size(); ++i) {
        const auto rows =
            Kokkos::make_pair(static_cast<int>(i) * context.length, static_cast<int>(i + 1) * context.length);
        const Matrix<Real> in_rows = Kokkos::subview(x, rows, Kokkos::ALL);
        const Matrix<Real> out_rows = Kokkos::subview(out, rows, Kokkos::ALL);
        body(in_rows, mix_bits(context.streams[i] ^ mix_bits(context.place)), out_rows);
    }
}

/// x as the update sees it.
template <class Real>
Matrix<Real> update_input(const LoraContext<Real>& context, const Matrix<Real>& x, LoraScratch<Real>& scratch) {
    if (!drops(context)) return x;
    const Matrix<Real> dropped = dense(scratch.dropped, x.extent(0), x.extent(1));
    for_each_sequence(context, x, dropped, [&](const auto& in, std::uint64_t stream, const auto& out) {
        dropout(in, context.form.dropout, stream, out);
    });
    return dropped;
}

} // namespace

template <class Real>
LoraScratch<Real>::LoraScratch(const LoraForm& form, int rows, int widest)
    : low(uninitialized("lora_low"), rows, form.rank),
      low_gradient(uninitialized("lora_low_gradient"), rows, form.rank),
      a_gradient(uninitialized("lora_a_gradient"), form.rank, widest),
      b_gradient(uninitialized("lora_b_gradient"), widest, form.rank) {
    if (form.dropout > 0) dropped = Matrix<Real>(uninitialized("lora_dropped"), rows, widest);
}

template <class Real>
void add_low_rank(Gemm<Real>& gemm, const LoraContext<Real>& context, const LowRank<Real>& update,
                  const Matrix<Real>& x, const Matrix<Real>& y, LoraScratch<Real>& scratch) {
    if (!update.exists()) return;
    const Matrix<Real> low = dense(scratch.low, x.extent(0), update.a.extent(0));
    gemm.multiply(Transpose::no, Transpose::yes, 1, update_input(context, x, scratch), update.a, 0, low);
    gemm.multiply(Transpose::no, Transpose::yes, static_cast<Real>(context.form.scale), low, update.b, 1, y);
}

template <class Real>
void low_rank_backward(Gemm<Real>& gemm, const LoraContext<Real>& context, const LowRank<Real>& update,
                       const Matrix<Real>& x, const Matrix<Real>& dy, const Matrix<Real>& dx,
                       LoraScratch<Real>& scratch) {
    if (!update.exists()) return;
    const auto scale = static_cast<Real>(context.form.scale);
    const std::size_t rank = update.a.extent(0);
    const Matrix<Real> low_gradient = dense(scratch.low_gradient, x.extent(0), rank);
    gemm.multiply(Transpose::no, Transpose::no, scale, dy, update.b, 0, low_gradient);
    if (update.a_gradients.extent(0) > 0) {
        const Matrix<Real> in = update_input(context, x, scratch);
        const Matrix<Real> low = dense(scratch.low, x.extent(0), rank);
        const Matrix<Real> da = dense(scratch.a_gradient, rank, x.extent(1));
        const Matrix<Real> db = dense(scratch.b_gradient, dy.extent(1), rank);
        gemm.multiply(Transpose::no, Transpose::yes, 1, in, update.a, 0, low);
        gemm.multiply(Transpose::yes, Transpose::no, scale, dy, low, 0, db);
        gemm.multiply(Transpose::yes, Transpose::no, 1, low_gradient, in, 0, da);
        add_to(update.a_gradients, da);
        add_to(update.b_gradients, db);
    }
    if (dx.extent(0) == 0) return;
    if (!drops(context)) {
        gemm.multiply(Transpose::no, Transpose::no, 1, low_gradient, update.a, 1, dx);
        return;
    }
    const Matrix<Real> through = dense(scratch.dropped, x.extent(0), x.extent(1));
    gemm.multiply(Transpose::no, Transpose::no, 1, low_gradient, update.a, 0, through);
    for_each_sequence(context, through, dx, [&](const auto& in, std::uint64_t stream, const auto& out) {
        add_dropout(in, context.form.dropout, stream, out);
    });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template struct LoraScratch<Real>;                                                                                 \
    template void add_low_rank<Real>(Gemm<Real>&, const LoraContext<Real>&, const LowRank<Real>&, const Matrix<Real>&, \
                                     const Matrix<Real>&, LoraScratch<Real>&);                                         \
    template void low_rank_backward<Real>(Gemm<Real>&, const LoraContext<Real>&, const LowRank<Real>&,                 \
                                          const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&,               \
                                          LoraScratch<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
