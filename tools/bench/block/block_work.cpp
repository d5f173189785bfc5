#include "tools/bench/block/block_work.hpp"

#include "tools/bench/attention_work.hpp"
#include "tools/bench/block/random_weights.hpp"

#include <set>
#include <vector>

namespace lolcats::bench {

namespace {

constexpr double f32 = 4;
constexpr double f64 = 8;
constexpr double bf16 = 2;
constexpr double fp8 = 1;

struct LinearSize {
    double outputs, inputs;
    bool adds; ///< to what is there
};

/// One micro-batch through one layer.
class LayerWork {
public:
    LayerWork(const Settings& settings, const StudentForm& form, Arithmetic arithmetic)
        : m_(settings.model), form_(form), arithmetic_(arithmetic), storage_(storage_of(settings.options)),
          batch_(settings.options.micro_batch),
          n_(static_cast<double>(settings.options.micro_batch) * settings.length()), width_(m_.hidden_size),
          query_(m_.query_size()), kv_(m_.kv_size()), wide_(m_.intermediate_size),
          attention_(attention_work({batch_, settings.length(), m_.heads, m_.kv_heads, m_.head_dim}, form)) {}

    [[nodiscard]] std::vector<LinearSize> attention_projections() const {
        auto all = attention_in();
        all.push_back(attention_out());
        return all;
    }
    [[nodiscard]] std::vector<LinearSize> attention_in() const {
        return {{query_, width_, false}, {kv_, width_, false}, {kv_, width_, false}};
    }
    [[nodiscard]] LinearSize attention_out() const { return {width_, query_, true}; }
    [[nodiscard]] std::vector<LinearSize> mlp_in() const { return {{wide_, width_, false}, {wide_, width_, false}}; }
    [[nodiscard]] std::vector<LinearSize> mlp_out() const { return {{width_, wide_, true}}; }

    void add(const std::string& name, double flops, double bytes) { works_[name] += Work{flops, bytes}; }

    /// x W^T of one x, which is rounded once, or with `backward` dy W, and the widening of W before it.
    void add_products(const std::vector<LinearSize>& projections, bool backward = false) {
        add_rounding(projections, backward);
        add_products_alone(projections, backward);
    }
    /// The same for an x that the kernel `name` makes from `arrays` of its size, and rounds where the product is in
    /// bf16.
    void add_products_of(const std::string& name, double arrays, const std::vector<LinearSize>& projections) {
        const bool makes_half = factor_bytes(false) == bf16;
        if (!makes_half) add_rounding(projections, false);
        add(name, 0, (f32 * arrays + (makes_half ? bf16 : f32)) * n_ * projections.front().inputs);
        add_products_alone(projections, false);
    }
    /// Libraries' products in float add to what is in their result, which is therefore copied there.
    void add_residual(double times) {
        if (arithmetic_ == Arithmetic::f32) add_rows("copy", width_, 2 * times);
    }

    void add_rounding(const std::vector<LinearSize>& projections, bool backward) {
        const double factor = factor_bytes(backward);
        for (const LinearSize& p : projections)
            if (factor != f32 && (backward || &p == &projections.front()))
                add(factor == fp8 ? "round_to_float8" : "round_to_bf16", 0,
                    (f32 + factor) * n_ * (backward ? p.outputs : p.inputs));
    }
    void add_products_alone(const std::vector<LinearSize>& projections, bool backward) {
        for (const LinearSize& p : projections) {
            const double in = backward ? p.outputs : p.inputs;
            const double out = backward ? p.inputs : p.outputs;
            const double factor = factor_bytes(backward);
            add("weight_products", 2 * n_ * in * out,
                factor * (n_ * in + in * out) + f32 * n_ * out * (p.adds && !backward ? 2 : 1));
            const bool is_float8 = storage_ == Storage::fp8;
            const double stored = is_float8 ? fp8 : bf16;
            if (factor != stored) add(is_float8 ? "widen_float8" : "widen", 0, (factor + stored) * in * out);
        }
    }

    /// `n` x D in and out, so many arrays each.
    void add_rows(const std::string& name, double width, double arrays) { add(name, 0, f32 * n_ * width * arrays); }

    void teacher() {
        const double heads = m_.heads * batch_;
        add("softmax_attention", heads * attention_.teacher, f32 * n_ * (2 * query_ + 2 * kv_ + m_.heads));
    }
    /// `arrays` of [n, H d] besides q and y.
    void student(double arrays) {
        add("student_attention", m_.heads * batch_ * attention_.forward,
            f32 * n_ * ((2 + arrays) * query_ + 2 * kv_ + m_.heads));
    }
    /// Of the maps alone.
    void student_maps_backward() {
        add("student_attention_backward", m_.heads * batch_ * attention_.maps,
            f32 * n_ * (3 * query_ + 2 * kv_ + m_.heads) + 2 * f32 * map_gradients());
    }
    void student_cross_entropy() {
        add("attention_cross_entropy", m_.heads * batch_ * attention_.entropy,
            f32 * n_ * (query_ + kv_ + 2 * m_.heads) + 2 * f32 * map_gradients());
    }
    /// Of q, k and v alone.
    void student_inputs_backward() {
        add("student_attention_backward", m_.heads * batch_ * attention_.frozen,
            f32 * n_ * (6 * query_ + 2 * kv_ + m_.heads));
    }
    [[nodiscard]] double map_gradients() const { return batch_ * 2.0 * m_.heads * m_.head_dim * form_.feature_dim; }

    /// y += s x A^T B^T of the attention's projections, dropout included.
    void low_rank_forward(double rank, double dropout) {
        for (const LinearSize& p : attention_projections()) {
            add("array_products", 2 * n_ * rank * (p.inputs + p.outputs), f32 * n_ * (p.inputs + 2 * p.outputs));
            if (dropout > 0) add("dropout", 0, 2 * f32 * n_ * p.inputs);
        }
    }
    /// dA and dB, after x A^T once more.
    void low_rank_backward(double rank, double dropout) {
        for (const LinearSize& p : attention_projections()) {
            add("array_products", 2 * n_ * rank * (2 * p.inputs + 2 * p.outputs),
                f32 * n_ * (2 * p.outputs + 2 * p.inputs));
            if (dropout > 0) add("dropout", 0, 2 * f32 * n_ * p.inputs);
            add("add_to", 0, (f32 + 2 * f64) * rank * (p.inputs + p.outputs));
        }
    }
    /// dx of dA's x.
    void low_rank_input_backward(const std::vector<LinearSize>& projections, double rank, double dropout) {
        for (const LinearSize& p : projections) {
            add("array_products", 2 * n_ * rank * p.inputs, f32 * n_ * (dropout > 0 ? 1 : 2) * p.inputs);
            if (dropout > 0) add("add_dropout", 0, 3 * f32 * n_ * p.inputs);
        }
    }

    [[nodiscard]] double width() const { return width_; }
    [[nodiscard]] double query() const { return query_; }
    [[nodiscard]] double kv() const { return kv_; }
    [[nodiscard]] double wide() const { return wide_; }
    [[nodiscard]] const Works& works() const { return works_; }

private:
    /// Of a number that goes into a product.
    [[nodiscard]] double factor_bytes(bool backward) const {
        if (arithmetic_ == Arithmetic::f32) return f32;
        return arithmetic_ == Arithmetic::fp8 && !backward ? fp8 : bf16;
    }

    ModelConfig m_;
    StudentForm form_;
    Arithmetic arithmetic_;
    Storage storage_;
    int batch_;
    double n_, width_, query_, kv_, wide_;
    AttentionWork attention_; ///< of one head and sequence
    Works works_;
};

void add_repeated(Works& works, const LayerWork& layer, double times) {
    for (const auto& [name, work] : layer.works()) works[name] += work * times;
}

/// AdamW reads gradient, moments and value and writes three of them back.
void add_optimizer(Works& works, double parameters) {
    works["adamw"] += {12 * parameters, (f64 + 6 * f32) * parameters};
    works["gradient_norm"] += {2 * parameters, f64 * parameters};
}

/// The whole layer, as the residual stream passes it.
void add_teacher(LayerWork& w) {
    w.add_products_of("rms_norm", 1, w.attention_in());
    w.add_products({w.attention_out()});
    w.add_products_of("rms_norm", 1, w.mlp_in());
    w.add_products_of("swiglu", 2, w.mlp_out());
    w.add_residual(2);
    w.teacher();
    w.add_rows("rotate", w.query() + w.kv(), 2);
    w.add_rows("round_to_bf16", w.width(), 2); // the residual stream
}

/// An adapted layer on the way forward, up to its gate.
void add_adapted(LayerWork& w, double rank, double dropout) {
    w.add_products(w.attention_in());
    w.add_rows("rms_norm", w.width(), 2); // whose result the low-rank updates take, too
    w.add_products({w.attention_out()});
    w.add_products_of("rms_norm", 1, w.mlp_in());
    w.add_residual(1);
    w.low_rank_forward(rank, dropout);
    w.student(0);
    w.add_rows("rotate", w.query() + w.kv(), 2);
}

Works of_step(const Settings& settings, const LayerWork& w) {
    Works works;
    add_repeated(works, w, static_cast<double>(settings.layers) * settings.micro_batches());
    return works;
}

} // namespace

Works teacher_work(const Settings& settings, const StudentForm& form, Arithmetic arithmetic) {
    LayerWork w(settings, form, arithmetic);
    add_teacher(w);
    return of_step(settings, w);
}

Works transfer_work(const Settings& settings, const StudentForm& form, Arithmetic arithmetic, double parameters) {
    LayerWork w(settings, form, arithmetic);
    add_teacher(w);
    w.student(2); // the teacher's output and dy
    w.student_maps_backward();
    if (settings.options.xent_factor > 0) w.student_cross_entropy();
    w.add("copy", 0, f32 * w.map_gradients());
    w.add("add_over_batch", 0, f32 * w.map_gradients() + 2 * f64 * w.map_gradients() / settings.options.micro_batch);
    Works works = of_step(settings, w);
    add_optimizer(works, parameters);
    return works;
}

Works lora_work(const Settings& settings, const StudentForm& form, Arithmetic arithmetic, double parameters) {
    const double rank = settings.options.lora_rank;
    const double dropout = settings.options.lora_dropout;
    LayerWork w(settings, form, arithmetic);
    add_adapted(w, rank, dropout);
    LayerWork again(settings, form, arithmetic);
    add_adapted(again, rank, dropout);
    w.add_products_of("swiglu", 2, w.mlp_out()); // not recomputed
    w.add_residual(1);
    w.add_products(w.mlp_out(), true);
    w.add_products(w.mlp_in(), true);
    w.add_products({w.attention_out()}, true);
    w.low_rank_backward(rank, dropout);
    w.low_rank_input_backward({w.attention_out()}, rank, dropout);
    w.student_inputs_backward();
    w.add_rows("rms_norm_backward", w.width(), 4);
    w.add_rows("rotate", w.query() + w.kv(), 2);
    w.add_rows("swiglu_backward", w.wide(), 5);
    w.add_rows("sum_head_groups", w.query() + w.kv(), 2);
    w.add_rows("copy", w.width(), 2);            // what enters the layer
    LayerWork above(settings, form, arithmetic); // nothing is trained below the model's first layer
    above.add_products(above.attention_in(), true);
    above.low_rank_input_backward(above.attention_in(), rank, dropout);
    above.add_rows("rms_norm_backward", above.width(), 4);
    Works works = of_step(settings, w);
    add_repeated(works, again, static_cast<double>(settings.layers_recomputed()) * settings.micro_batches());
    const int layers_above = settings.stages() > 1 ? settings.layers : settings.layers - 1;
    add_repeated(works, above, static_cast<double>(layers_above) * settings.micro_batches());
    add_optimizer(works, parameters);
    return works;
}

std::string class_of(const std::string& name) {
    if (name == "weight_products") return "matrix products";
    if (name == "array_products") return "low-rank products";
    if (name == "softmax_attention") return "teacher attention";
    if (name == "student_attention") return "student forward";
    if (name == "student_attention_backward") return "student backward";
    if (name == "attention_cross_entropy") return "student cross-entropy";
    if (name == "adamw" || name == "gradient_norm") return "optimizer";
    if (name == "host") return "other (host, launches)";
    return "elementwise, norm, rope";
}

} // namespace lolcats::bench
