#include "src/stages/hidden.hpp"

#include "io/file.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/attempt.hpp"
#include "src/comm/stage_link.hpp"
#include "src/interrupt.hpp"
#include "src/model/decoder_layer.hpp"
#include "src/pace.hpp"
#include "src/stages/array_report.hpp"
#include "src/stages/replica_weights.hpp"
#include "src/train/batches.hpp"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

/// Those that a block's input passes through: of the last block none, since nothing comes after it.
Range layers_to_run(const BlockLayout& layout, int block) {
    return block + 1 < layout.blocks ? layout.layers_of(block) : Range{0, 0};
}

/// Predicted bytes of this rank's arrays.
double array_bytes(const Options& options, const RunInput& input, const Mesh& mesh, Arithmetic arithmetic) {
    const RunPlan plan(input, options, arithmetic, mesh.pipeline_ranks * mesh.data_ranks);
    const Range blocks = blocks_of_stage(input.layout.blocks, mesh.pipeline_ranks, mesh.stage);
    int layers = 0;
    for (int block = blocks.begin; block < blocks.end; ++block) layers += layers_to_run(input.layout, block).size();
    return teacher_memory(plan.plan, plan.options, layers, neighbours(mesh)).total();
}

/// One rank's consecutive blocks as the teacher, with the stores of their inputs.
class TeacherStage {
public:
    TeacherStage(const Options& options, const RunInput& input, const Mesh& mesh, const InputIdentity& identity,
                 Arithmetic arithmetic)
        : input_(input), mesh_(mesh),
          link_(mesh.pipeline, array_transport(options), Flow::forward, residual_wire(input.storage)),
          replicas_(make_array_communicator(mesh.data, array_transport(options), replicas_name(mesh))),
          weights_(options, input, *replicas_),
          blocks_(blocks_of_stage(input.layout.blocks, mesh.pipeline_ranks, mesh.stage)), arithmetic_(arithmetic),
          gemm_(arithmetic), rope_(rope_form(input.config), input.length()),
          activations_(input.config, input.shape(options.micro_batch)),
          x_(uninitialized("residual"), input.shape(options.micro_batch).rows(), input.config.hidden_size) {
        for (int block = blocks_.begin; block < blocks_.end; ++block)
            stores_.push_back(open_store(options, identity, block));
    }

    /// Collective over the replicas.
    void load_weights() {
        for (int block = blocks_.begin; block < blocks_.end; ++block) load_block(block);
    }

    /// Computes the sequences and hands their residual stream on to the next stage.
    void run(const Sequences& sequences) {
        const AttentionShape shape = input_.shape(static_cast<int>(sequences.size()));
        const Matrix<float> x = first_rows(x_, shape.rows());
        if (link_.is_first())
            input_.embed(sequences, x);
        else
            link_.receive_forward(x);
        for (int block = blocks_.begin; block < blocks_.end; ++block) {
            copy_to_host(block, x);
            if (is_host_memory()) store(block, sequences); // before the layers overwrite it
            for (const auto& weights : layers_[block - blocks_.begin]) {
                teacher_layer({input_.config, rope_, gemm_}, shape, weights, for_shape(activations_, shape), x);
                round_residual(input_.storage, x);
            }
            if (!is_host_memory()) store(block, sequences); // while a GPU computes the layers
        }
        if (!link_.is_last()) link_.send_forward(x);
    }

    /// Whether the next sequences are to be computed. The first stage decides, and the others hear of it after what
    /// they were sent before: whatever is in flight is finished.
    [[nodiscard]] bool go_on(Interrupt& interrupt) const { return !link_.pass_on(interrupt.is_wanted()); }

    /// Checks what is stored of these sequences; damaged ones are not done any more.
    void verify(Range sequences) {
        for (std::size_t i = 0; i < stores_.size(); ++i)
            for (int sequence = sequences.begin; stores_[i] != nullptr && sequence < sequences.end; ++sequence)
                if (!stores_[i]->verify(sequence))
                    spdlog::warn("block_{:02}.h5: sequence {} does not match its checksum, or cannot be read, and is "
                                 "computed again",
                                 blocks_.begin + static_cast<int>(i), sequence);
    }

    [[nodiscard]] int length() const { return input_.length(); }
    /// Whether all this stage's stores hold the sequence.
    [[nodiscard]] bool is_done(std::int64_t sequence) const {
        return std::all_of(stores_.begin(), stores_.end(),
                           [&](const auto& store) { return store == nullptr || store->is_done(sequence); });
    }

    void close() {
        link_.flush();
        for (auto& store : stores_)
            if (store != nullptr) store->close();
    }

private:
    std::unique_ptr<io::HiddenStoreWriter> open_store(const Options& options, const InputIdentity& identity,
                                                      int block) const {
        if (block == 0) return nullptr;
        auto info = hidden_store_info(options, input_, identity, arithmetic_, block);
        info.run_deck = run_deck(options, "lolcats_hidden").dump();
        if (options.fresh && mesh_.data.rank() == 0) io::remove_tree(hidden_path(options, block));
        return std::make_unique<io::HiddenStoreWriter>(hidden_path(options, block), info, mesh_.data.get());
    }

    /// The last block only receives: nothing needs what leaves it.
    void load_block(int block) {
        const Range layers = layers_to_run(input_.layout, block);
        layers_.push_back(load_layers<float>(weights_.source(), input_.config, layers, input_.storage));
    }

    [[nodiscard]] bool is_host_memory() const { return host_x_.data() == x_.data(); }

    void copy_to_host(int block, const Matrix<float>& x) const {
        if (stores_[block - blocks_.begin] == nullptr) return;
        // On the compute stream: a wait for the whole device would be one for what is on its way to the next stage.
        const auto host = Kokkos::subview(host_x_, Kokkos::make_pair(std::size_t{0}, x.extent(0)), Kokkos::ALL);
        Kokkos::deep_copy(Execution(), host, x);
        Execution().fence("the states are in the host's memory");
    }

    void store(int block, const Sequences& sequences) {
        const auto& store = stores_[block - blocks_.begin];
        if (store == nullptr) return;
        const std::size_t size = static_cast<std::size_t>(input_.length()) * input_.config.hidden_size;
        for (std::size_t i = 0; i < sequences.size(); ++i)
            if (!store->is_done(sequences[i])) store->write(sequences[i], host_x_.data() + i * size);
    }

    const RunInput& input_;
    const Mesh& mesh_;
    StageLink link_;
    std::unique_ptr<ArrayCommunicator> replicas_;
    ReplicaWeights weights_;
    Range blocks_;
    Arithmetic arithmetic_;
    Gemm<float> gemm_;
    RopeTable<float> rope_;
    LayerActivations<float> activations_;
    Matrix<float> x_;
    decltype(Kokkos::create_mirror_view(Kokkos::SharedHostPinnedSpace{}, Matrix<float>())) host_x_ =
        Kokkos::create_mirror_view(Kokkos::SharedHostPinnedSpace{}, x_); ///< x_ itself on a host
    std::vector<std::unique_ptr<io::HiddenStoreWriter>> stores_;
    std::vector<std::vector<LayerWeights<float>>> layers_;
};

/// The sequences of this replica that some stage of its pipeline still lacks.
Sequences missing_sequences(const Range& mine, const Mesh& mesh, const TeacherStage& stage) {
    std::vector<std::int64_t> done(mine.size());
    for (int i = 0; i < mine.size(); ++i) done[i] = stage.is_done(mine.begin + i) ? 1 : 0;
    mesh.pipeline.min(done.data(), done.size());
    Sequences missing;
    for (int i = 0; i < mine.size(); ++i)
        if (done[i] == 0) missing.push_back(mine.begin + i);
    return missing;
}

/// False if it was stopped before the last of them.
bool compute(const Options& options, const Communicator& world, TeacherStage& stage, const Sequences& missing,
             Interrupt& interrupt) {
    Pace pace("hidden states of", "sequences", stage.length(), 0, static_cast<std::int64_t>(missing.size()),
              world.rank() == 0);
    std::int64_t logged = 0;
    for (const auto& sequences : micro_batches(missing, options.micro_batch, 1, 0)) {
        if (!stage.go_on(interrupt)) return false;
        stage.run(sequences);
        pace.advance(static_cast<std::int64_t>(sequences.size()));
        if (world.rank() == 0 && (pace.is_done() || pace.done() - logged >= 64)) {
            spdlog::info(pace.text());
            logged = pace.done();
        }
    }
    return true;
}

void write_overview(const Options& options, const RunInput& input, const InputIdentity& identity,
                    Arithmetic arithmetic) {
    std::vector<std::filesystem::path> blocks;
    for (int block = 1; block < input.layout.blocks; ++block) blocks.push_back(hidden_path(options, block));
    io::write_virtual_dataset(std::filesystem::path(options.work) / "hidden" / "all.h5", blocks,
                              hidden_store_info(options, input, identity, arithmetic, 1));
}

} // namespace

void store_hidden_states(const Options& options, const Communicator& world) {
    const RunInput input(options);
    if (input.layout.blocks == 1) {
        if (world.rank() == 0)
            spdlog::info("one block of all {} layers: its input is the token embedding, so nothing is stored",
                         input.config.layers);
        return;
    }
    const Mesh mesh = make_mesh(world, input.layout.blocks, options.pipeline_ranks);
    const Attempt attempt(options, "lolcats_hidden", world);
    Interrupt interrupt(options, world, mesh.pipeline_ranks);
    const InputIdentity identity = identify(input, world);
    if (world.rank() == 0) io::create_directories(std::filesystem::path(options.work) / "hidden");
    world.barrier();
    const Arithmetic arithmetic =
        settle_arithmetic(options, world, options.fresh ? StoredStates::unread : StoredStates::read);
    const double predicted = array_bytes(options, input, mesh, arithmetic);
    require_room(world, predicted);
    const ArrayReport arrays;
    TeacherStage stage(options, input, mesh, identity, arithmetic);
    const Range mine = share(static_cast<int>(input.tokens.sequences()), mesh.data_ranks, mesh.replica);
    if (options.verify) stage.verify(mine);
    const Sequences missing = missing_sequences(mine, mesh, stage);
    std::int64_t most = static_cast<std::int64_t>(missing.size());
    world.max(&most, 1);
    const bool is_complete = most == 0;
    if (!is_complete) {
        stage.load_weights(); // which takes minutes
        world.barrier();      // none is to wait for another's first message meanwhile, which has a limit
    }
    const bool finished = is_complete || compute(options, world, stage, missing, interrupt);
    const bool stops = interrupt.finish(!finished); // before the ranks wait for each other: all are to hear of it
    stage.close();
    if (stops) return;
    if (!is_complete) arrays.finish(world, predicted);
    if (is_complete && world.rank() == 0) spdlog::info("the hidden states of all sequences are stored already");
    if (world.rank() == 0) write_overview(options, input, identity, arithmetic);
}

} // namespace lolcats
