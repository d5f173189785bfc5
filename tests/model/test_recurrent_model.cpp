/// A model of several layers that takes its tokens in pieces and steps against its parallel form.
#include "src/model/recurrent_model.hpp"
#include "tests/model/small_config.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <numeric>

namespace lolcats::test {
namespace {

constexpr int layers = 3;
constexpr int length = 19;
constexpr int window = 4;
constexpr int rank = 2;
constexpr int feature_dim = 3;

ModelConfig config() {
    return small_config(layers);
}

/// Draws one array after the other.
template <class Real>
class Maker {
public:
    Matrix<Real> array(int rows, int columns, double scale) {
        return matrix<Real>(rows, columns, random_values(static_cast<std::size_t>(rows) * columns, ++seed_, scale));
    }

    RecurrentWeights<Real> model(const std::optional<StudentForm>& form) {
        RecurrentWeights<Real> weights;
        for (int i = 0; i < layers; ++i) {
            weights.layers.push_back(layer());
            weights.adapted.push_back(form ? adapted(*form) : AdaptedLayer<Real>());
        }
        weights.head = {norm(), weight(c_.vocab_size, c_.hidden_size)};
        weights.student = form;
        if (form) weights.lora = {.rank = rank, .scale = 1.5, .dropout = 0};
        return weights;
    }

private:
    Weight<Real> weight(int outputs, int inputs) {
        Weight<Real> weight;
        weight.full = array(outputs, inputs, 1 / std::sqrt(inputs));
        return weight;
    }

    Vector<Real> norm() {
        auto values = random_values(c_.hidden_size, ++seed_, 0.2);
        for (double& x : values) x += 1;
        return vector<Real>(values);
    }

    LayerWeights<Real> layer() {
        return {.input_norm = norm(),
                .post_attention_norm = norm(),
                .q = weight(c_.query_size(), c_.hidden_size),
                .k = weight(c_.kv_size(), c_.hidden_size),
                .v = weight(c_.kv_size(), c_.hidden_size),
                .o = weight(c_.hidden_size, c_.query_size()),
                .gate = weight(c_.intermediate_size, c_.hidden_size),
                .up = weight(c_.intermediate_size, c_.hidden_size),
                .down = weight(c_.hidden_size, c_.intermediate_size)};
    }

    Tensor3<Real> map(const StudentForm& form) {
        const std::size_t size = static_cast<std::size_t>(c_.heads) * c_.head_dim * form.feature_dim;
        return filled<Tensor3<Real>>(random_values(size, ++seed_, 0.5), c_.heads, c_.head_dim, form.feature_dim);
    }

    LowRank<Real> update(int outputs, int inputs) {
        return {.a = array(rank, inputs, 0.4), .b = array(outputs, rank, 0.4), .a_gradients = {}, .b_gradients = {}};
    }

    AdaptedLayer<Real> adapted(const StudentForm& form) {
        AdaptedLayer<Real> layer;
        layer.student = {map(form), map(form), vector<Real>(random_values(c_.heads, ++seed_)),
                         vector<Real>(random_values(c_.heads, ++seed_)),
                         vector<Real>(random_values(c_.heads, ++seed_))};
        layer.lora = {update(c_.query_size(), c_.hidden_size), update(c_.kv_size(), c_.hidden_size),
                      update(c_.kv_size(), c_.hidden_size), update(c_.hidden_size, c_.query_size())};
        return layer;
    }

    ModelConfig c_ = config();
    unsigned seed_ = 100;
};

template <class Real>
Matrix<Real> embeddings() {
    return Maker<Real>().array(length, config().hidden_size, 1);
}

/// Logits of all tokens by the kernels that training uses.
template <class Real>
std::vector<double> parallel(const std::optional<StudentForm>& form) {
    const ModelConfig c = config();
    const auto weights = Maker<Real>().model(form);
    const AttentionShape shape = attention_shape(c, 1, length);
    const RopeTable<Real> rope(rope_form(c), length);
    Gemm<Real> gemm(Arithmetic::exact);
    const LayerContext<Real> context{c, rope, gemm};
    const auto x = embeddings<Real>();
    if (form) {
        AdaptedDecoder<Real> decoder(context, shape, *form, weights.lora);
        for (int i = 0; i < layers; ++i) decoder.forward(shape, weights.layers[i], weights.adapted[i], {}, x);
    } else {
        const LayerActivations<Real> act(c, shape);
        for (int i = 0; i < layers; ++i) teacher_layer(context, shape, weights.layers[i], act, x);
    }
    LmHead<Real> head(c, weights.head, gemm);
    return values(head.logits(x));
}

/// The same with pieces up to `first` and `second`, then steps. Another sequence is under way beside it.
template <class Real>
std::vector<double> recurrent(const std::optional<StudentForm>& form, int first, int second, Arithmetic arithmetic) {
    RecurrentModel<Real> model(config(), Maker<Real>().model(form), {.slots = 3, .piece = length, .positions = length},
                               arithmetic);
    const auto x = embeddings<Real>();
    const auto rows = [&](int begin, int end) -> Matrix<Real> {
        return Kokkos::subview(x, Kokkos::make_pair(begin, end), Kokkos::ALL);
    };
    constexpr int slot = 2;
    constexpr int other = 0;
    for (const int each : {other, slot}) model.begin(each);
    if (first > 0) model.take(slot, rows(0, first));
    if (second > first) model.take(slot, rows(first, second));
    const std::vector<int> both = {other, slot};
    for (int n = second; n < length; ++n) {
        const auto step = Maker<Real>().array(2, config().hidden_size, 1);
        const auto mine = Kokkos::subview(step, 1, Kokkos::ALL);
        Kokkos::deep_copy(mine, Kokkos::subview(x, n, Kokkos::ALL));
        model.step(both, step);
        Kokkos::deep_copy(Kokkos::subview(x, n, Kokkos::ALL), mine);
    }
    EXPECT_EQ(model.position(slot), length);
    EXPECT_EQ(model.position(other), length - second);
    return values(model.logits(x));
}

void expect_all_splits(const std::optional<StudentForm>& form, const std::string& name) {
    const auto expected = parallel<double>(form);
    EXPECT_TRUE(close(parallel<float>(form), expected, 1e-5)) << name;
    for (int first = 0; first <= length; ++first) {
        const auto at = name + ", split at " + std::to_string(first);
        const int second = first + (length - first) / 2;
        for (const int steps_from : {first, second}) {
            EXPECT_TRUE(close(recurrent<double>(form, first, steps_from, Arithmetic::exact), expected, 1e-11)) << at;
            for (const Arithmetic arithmetic : {Arithmetic::exact, Arithmetic::f32})
                EXPECT_TRUE(close(recurrent<float>(form, first, steps_from, arithmetic), expected, 1e-5)) << at;
        }
    }
}

TEST(RecurrentModel, IsTheParallelFormAtAnySplit) {
    for (const auto& [near, name] : {std::pair{NearKeys::terrace, "terrace"}, std::pair{NearKeys::sliding, "sliding"},
                                     std::pair{NearKeys::none, "none"}})
        expect_all_splits(StudentForm{near, window, FeatureMapKind::hedgehog, feature_dim, false}, name);
}

TEST(RecurrentModel, OfTheTeacherIsTheParallelForm) {
    expect_all_splits(std::nullopt, "teacher");
}

/// A slot that had a sequence before gives the next one the same numbers.
TEST(RecurrentModel, SlotsAreUsedAgain) {
    for (const NearKeys near : {NearKeys::terrace, NearKeys::sliding, NearKeys::none}) {
        const StudentForm form{near, window, FeatureMapKind::hedgehog, feature_dim, false};
        RecurrentModel<float> model(config(), Maker<float>().model(form), {.slots = 1, .piece = length, .positions = 1},
                                    Arithmetic::exact);
        std::vector<std::vector<double>> logits;
        for (int round = 0; round < 2; ++round) {
            const auto x = embeddings<float>();
            model.begin(0);
            model.take(0, x);
            logits.push_back(values(model.logits(x)));
        }
        EXPECT_EQ(logits[0], logits[1]);
    }
}

/// A student's state does not grow, the teacher's does.
TEST(RecurrentModel, StudentsHaveStatesOfConstantSize) {
    const auto bytes = [](const std::optional<StudentForm>& form, int positions) {
        return RecurrentModel<float>(config(), Maker<float>().model(form), {2, 1, positions}, Arithmetic::exact)
            .state_bytes();
    };
    const StudentForm form{NearKeys::terrace, window, FeatureMapKind::hedgehog, feature_dim, false};
    const ModelConfig c = config();
    const std::size_t sums = c.heads * 2 * feature_dim * (c.head_dim + 1);
    const std::size_t near = 2 * 2 * window * c.kv_size();
    EXPECT_EQ(bytes(form, 10), layers * (sums + near) * sizeof(float));
    EXPECT_EQ(bytes(form, 1000), bytes(form, 10));
    EXPECT_EQ(bytes(std::nullopt, 1000), 100 * bytes(std::nullopt, 10));
}

} // namespace
} // namespace lolcats::test
