#include "src/stages/model_stage.hpp"

#include "src/stages/replica_weights.hpp"
#include "src/train/pipeline_schedule.hpp"

#include <algorithm>

namespace lolcats {

namespace {

Range layers_of_stage(const RunInput& input, const Mesh& mesh) {
    return input.layout.layers_of(blocks_of_stage(input.layout.blocks, mesh.pipeline_ranks, mesh.stage));
}

Vector<std::int32_t> first_values(const Vector<std::int32_t>& all, int count) {
    return Kokkos::subview(all, Kokkos::make_pair(0, count));
}

DropoutStreams streams_of(const Sequences& sequences, const std::function<std::uint64_t(std::int64_t)>& stream) {
    DropoutStreams streams;
    for (const std::int64_t sequence : sequences) streams.push_back(stream(sequence));
    return streams;
}

} // namespace

ModelStage::ModelStage(const Options& options, const RunInput& input, const Mesh& mesh, Arithmetic arithmetic,
                       Adaptation adaptation, Flow flow)
    : input_(input), layers_(layers_of_stage(input, mesh)), link_(mesh.pipeline, array_transport(options), flow),
      replicas_(make_array_communicator(mesh.data, array_transport(options), replicas_name(mesh))),
      adaptation_(std::move(adaptation)), largest_(input.shape(options.micro_batch)), gemm_(arithmetic),
      rope_(rope_form(input.config), input.length()),
      x_(uninitialized("residual"), largest_.rows() * (distils() ? 2 : 1), input.config.hidden_size),
      labels_(uninitialized("labels"), largest_.rows()), predicted_(uninitialized("predicted"), largest_.rows()) {
    load_weights(ReplicaWeights(options, input, *replicas_).source());
    if (adaptation_.form) {
        students_.emplace(input.config, *adaptation_.form, layers_, adaptation_.tied,
                          adaptation_.train_students ? trained_ : frozen_);
        decoder_.emplace(LayerContext<float>{input.config, rope_, gemm_}, largest_, *adaptation_.form,
                         adaptation_.adapter.form);
    }
    if (!adaptation_.form || distils()) teacher_activations_ = LayerActivations<float>(input.config, largest_);
    if (adaptation_.adapter.form.rank > 0) adapter_.emplace(input.config, adaptation_.adapter, layers_, trained_);
}

void ModelStage::load_weights(const WeightSource& source) {
    weights_ = load_layers<float>(source, input_.config, layers_, input_.storage);
    if (link_.is_last()) head_.emplace(input_.config, load_head<float>(source, input_.config, input_.storage), gemm_);
}

void ModelStage::allocate_parameters() {
    trained_.allocate(true);
    frozen_.allocate(false);
}

void ModelStage::bind_parameters() {
    adapted_.clear();
    for (int layer = layers_.begin; layer < layers_.end; ++layer) {
        AdaptedLayer<float>& adapted = adapted_.emplace_back();
        adapted.index = static_cast<std::uint64_t>(layer);
        adapted.softmax = adaptation_.softmax_layers.contains(layer);
        adapted.student = students_->parameters(layer);
        if (adaptation_.train_students) adapted.student_gradients = students_->gradients(layer);
        if (adapter_) adapted.lora = adapter_->layer(layer);
    }
    training_.emplace(*decoder_, weights_, adapted_, adaptation_.layers_kept,
                      link_.is_first() ? InputGradient::unused : InputGradient::wanted);
}

Matrix<float> ModelStage::receive_input(const Sequences& sequences) {
    const Matrix<float> x = first_rows(x_, static_cast<int>(sequences.size()) * input_.length());
    if (link_.is_first())
        input_.embed(sequences, x);
    else
        link_.receive_forward(x);
    return x;
}

/// The residual stream of a micro-batch as it enters this stage in training, with the teacher's below it where that
/// runs too: [n or 2 n, D].
Matrix<float> ModelStage::receive_streams(const Sequences& sequences) {
    if (!distils()) return receive_input(sequences);
    const int rows = static_cast<int>(sequences.size()) * input_.length();
    const Matrix<float> both = first_rows(x_, 2 * rows);
    if (link_.is_first()) {
        input_.embed(sequences, first_rows(both, rows));
        Kokkos::deep_copy(Execution(), teacher_rows(both, rows), first_rows(both, rows));
    } else {
        link_.receive_forward(both);
    }
    return both;
}

/// Of what receive_streams() gives; empty where there is no teacher.
Matrix<float> ModelStage::teacher_rows(const Matrix<float>& both, int rows) const {
    if (!distils()) return {};
    return Kokkos::subview(both, Kokkos::make_pair(rows, 2 * rows), Kokkos::ALL);
}

void ModelStage::run_layer(const AttentionShape& shape, int layer, const Matrix<float>& x) {
    const auto& weights = weights_[layer - layers_.begin];
    if (decoder_)
        decoder_->forward(shape, weights, adapted_[layer - layers_.begin], {}, x);
    else
        teacher_layer({input_.config, rope_, gemm_}, shape, weights, for_shape(teacher_activations_, shape), x);
}

std::map<int, MassSum> ModelStage::attention_mass() const {
    return decoder_ ? decoder_->attention_mass() : std::map<int, MassSum>();
}

void ModelStage::run_teacher(const AttentionShape& shape, const Matrix<float>& x) {
    const auto act = for_shape(teacher_activations_, shape);
    for (const auto& weights : weights_) teacher_layer({input_.config, rope_, gemm_}, shape, weights, act, x);
}

/// Row t is to predict token t + 1; the last row of a sequence predicts nothing.
void ModelStage::read_shifted_labels(const Sequences& sequences) const {
    const auto host = Kokkos::create_mirror_view(labels_);
    const int length = input_.length();
    std::vector<std::int32_t> labels(length);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        input_.tokens.read_labels(sequences[i], labels.data());
        std::copy(labels.begin() + 1, labels.end(), host.data() + i * length);
        host(i * length + length - 1) = unlabelled;
    }
    Kokkos::deep_copy(labels_, host);
}

CrossEntropySum ModelStage::evaluate(const Sequences& sequences, const LmHead<float>::LogitsVisitor& visit) {
    const AttentionShape shape = input_.shape(static_cast<int>(sequences.size()));
    const Matrix<float> x = receive_input(sequences);
    if (decoder_) decoder_->set_form(*adaptation_.form);
    for (int layer = layers_.begin; layer < layers_.end; ++layer) run_layer(shape, layer, x);
    if (!link_.is_last()) {
        link_.send_forward(x);
        return {};
    }
    read_shifted_labels(sequences);
    return head_->loss(x, first_values(labels_, shape.rows()), first_values(predicted_, shape.rows()), visit);
}

CrossEntropySum ModelStage::train(const std::vector<Sequences>& micro_batches, float scale,
                                  const std::function<std::uint64_t(std::int64_t)>& stream) {
    CrossEntropySum total;
    decoder_->set_form(training_form_.value_or(*adaptation_.form));
    std::vector<AdaptedStage::InFlight> flights(micro_batches.size());
    const auto forward = [&](int i) {
        const Sequences& sequences = micro_batches[i];
        const AttentionShape shape = input_.shape(static_cast<int>(sequences.size()));
        flights[i] = training_->take(largest_.rows(), x_.extent(1));
        const Matrix<float> both = receive_streams(sequences);
        const Matrix<float> x = first_rows(both, shape.rows());
        training_->forward(shape, streams_of(sequences, stream), x, flights[i]);
        const Matrix<float> teacher = teacher_rows(both, shape.rows());
        if (distils()) run_teacher(shape, teacher);
        if (!link_.is_last()) return link_.send_forward(both);
        read_shifted_labels(sequences);
        const auto sum = head_->loss_and_gradient(x, first_values(labels_, shape.rows()), scale,
                                                  first_values(predicted_, shape.rows()),
                                                  {teacher, static_cast<float>(adaptation_.kl_factor)});
        total.loss += sum.loss;
        total.labelled += sum.labelled;
        total.divergence += sum.divergence;
        Kokkos::deep_copy(Execution(), first_rows(flights[i].gradient, shape.rows()), x);
    };
    const auto backward = [&](int i) {
        const Sequences& sequences = micro_batches[i];
        const AttentionShape shape = input_.shape(static_cast<int>(sequences.size()));
        const Matrix<float> dx = first_rows(flights[i].gradient, shape.rows());
        if (!link_.is_last()) link_.receive_backward(dx);
        training_->backward(shape, streams_of(sequences, stream), flights[i], dx);
        if (!link_.is_first()) link_.send_backward(dx);
        training_->give_back(std::move(flights[i]));
    };
    run_one_forward_one_backward(link_.stage(), link_.stages(), static_cast<int>(micro_batches.size()), forward,
                                 backward);
    link_.flush();
    return total;
}

} // namespace lolcats
