#include "src/stages/run_input.hpp"

#include "io/file.hpp"
#include "kernels/attention_twin.hpp"
#include "kernels/gemm.hpp"
#include "lolcats/error.hpp"

#include <limits>

namespace lolcats {

namespace {

const std::string& required(const std::string& value, const char* option, const char* what) {
    if (value.empty()) fail("--{} is missing: give {}", option, what);
    return value;
}

} // namespace

RunInput::RunInput(const Options& options)
    : config(read_model_config(required(options.model, "model", "the teacher's Hugging Face directory"))),
      checkpoint(options.model), storage(storage_type(options.dtype)),
      tokens(required(options.tokens, "tokens", "an HDF5 token store"), config.vocab_size, options.sequences),
      layout(make_block_layout(config.layers, options.block_layers)), embedding_(checkpoint, config, storage) {
    if (config.sliding_window > 0 && tokens.length() > config.sliding_window)
        fail("{}: sequences of {} tokens are longer than the model's sliding_window, {}, and would be computed "
             "wrongly; pack the tokens to shorter sequences",
             options.tokens, tokens.length(), config.sliding_window);
    // Arrays of LoRA with a teacher beside it have two rows a token, which an int counts.
    if (const auto most = std::numeric_limits<int>::max() / 2 / tokens.length(); options.micro_batch > most)
        fail("--micro-batch {}: at most {} sequences of {} tokens are computed at once; lower it", options.micro_batch,
             most, tokens.length());
}

void RunInput::embed(std::span<const std::int64_t> sequences, const Matrix<float>& x) const {
    std::vector<std::int32_t> ids(sequences.size() * length());
    for (std::size_t i = 0; i < sequences.size(); ++i) tokens.read_tokens(sequences[i], ids.data() + i * length());
    embedding_.rows(ids, x);
}

namespace {

/// Throws Error, with what to do about it, if this processor lacks the products that --gemm asks for. A library tells
/// when one is computed, so a small one is.
Arithmetic require_products(const Options& options, Arithmetic arithmetic, const char* remedy) {
    constexpr int size = 512; // a shape that every library has
    const Matrix<float> x("probe_x", size, size);
    const Matrix<float> y("probe_y", size, size);
    Weight<float> weight;
    if (arithmetic == Arithmetic::fp8) {
        weight.float8 = ScaledFloat8("probe_weight", size, size);
        round_to_float8(x, weight.float8);
    } else {
        weight.half = Matrix<BFloat16>("probe_weight", size, size);
    }
    try {
        Gemm<float>(arithmetic).linear(x, {{weight, y}});
    } catch (const Error& error) {
        fail("--gemm {}: {}; {}", options.gemm, error.what(), remedy);
    }
    return arithmetic;
}

Arithmetic wanted_arithmetic(const Options& options, const Communicator& world) {
    if (options.gemm == "exact") return Arithmetic::exact;
    if (options.gemm == "f32") return Arithmetic::f32;
    if (options.gemm == "bf16" && options.dtype == "f32") return Arithmetic::bf16; // no weight is in bf16
    if (options.gemm == "bf16") return require_products(options, Arithmetic::bf16, "use --gemm f32 or auto");
    if (options.gemm == "fp8") {
        if (options.dtype != "fp8")
            fail("--gemm fp8 multiplies weights that are kept in 8 bits, not {}: give --dtype fp8 with it",
                 options.dtype);
        return require_products(options, Arithmetic::fp8, "use --gemm bf16");
    }
    if (options.dtype == "f32") return Arithmetic::exact;
    Arithmetic fastest = Arithmetic::f32;
    if (world.rank() == 0) fastest = measure_arithmetic();
    world.broadcast(&fastest, sizeof fastest, 0);
    return fastest;
}

/// Attention keeps to what the products do.
Arithmetic adopt(Arithmetic arithmetic) {
    twin::use_tensor_cores(arithmetic == Arithmetic::bf16 || arithmetic == Arithmetic::fp8);
    return arithmetic;
}

/// The arithmetic of the states that stage 0 stored; empty if there are none. Of those that cannot be read, whoever
/// opens them tells.
std::string stored_arithmetic(const Options& options) {
    const auto store = hidden_path(options, 1);
    std::error_code ignored;
    if (!std::filesystem::exists(store, ignored)) return {};
    try {
        return io::read_hidden_store_info(store).gemm;
    } catch (const Error&) {
        return {};
    }
}

std::filesystem::path arithmetic_file(const Options& options) {
    return std::filesystem::path(options.work) / "arithmetic.txt";
}

/// What an attempt on the work directory settled on; empty: none did.
std::string noted_arithmetic(const Options& options) {
    const auto file = arithmetic_file(options);
    return std::filesystem::exists(file) ? io::read_file(file) : "";
}

/// What --gemm auto has to keep to; empty: nothing.
std::string known_arithmetic(const Options& options, StoredStates states) {
    const std::string noted = options.fresh ? "" : noted_arithmetic(options);
    return noted.empty() && states == StoredStates::read ? stored_arithmetic(options) : noted;
}

} // namespace

ArrayTransport array_transport(const Options& options) {
    using Form = ArrayTransport::Form;
    const Form form = options.communication == "nccl"  ? Form::nccl
                      : options.communication == "mpi" ? Form::mpi
                                                       : Form::automatic;
    return {form, std::chrono::duration<double>(options.communication_timeout)};
}

Wire residual_wire(Storage storage) {
    return storage == Storage::full ? Wire::f32 : Wire::bf16;
}

Arithmetic choose_arithmetic(const Options& options, const Communicator& world) {
    return adopt(wanted_arithmetic(options, world));
}

Arithmetic settle_arithmetic(const Options& options, const Communicator& world, StoredStates states) {
    if (options.gemm != "auto" || options.dtype == "f32") return choose_arithmetic(options, world);
    const std::string known = world.broadcast(world.rank() == 0 ? known_arithmetic(options, states) : "", 0);
    const Arithmetic settled = known == name_of(Arithmetic::f32)    ? adopt(Arithmetic::f32)
                               : known == name_of(Arithmetic::bf16) ? adopt(Arithmetic::bf16)
                                                                    : choose_arithmetic(options, world);
    if (world.rank() == 0 && noted_arithmetic(options) != name_of(settled))
        io::write_file_atomically(arithmetic_file(options), name_of(settled));
    return settled;
}

const char* name_of(Arithmetic arithmetic) {
    switch (arithmetic) {
    case Arithmetic::exact:
        return "exact";
    case Arithmetic::f32:
        return "f32";
    case Arithmetic::bf16:
        return "bf16";
    case Arithmetic::fp8:
        return "fp8";
    }
    return "unknown";
}

std::filesystem::path hidden_path(const Options& options, int block) {
    return std::filesystem::path(options.work) / "hidden" / fmt::format("block_{:02}.h5", block);
}

std::filesystem::path transfer_directory(const Options& options) {
    return std::filesystem::path(options.work) / "transfer";
}

std::filesystem::path lora_directory(const Options& options) {
    return std::filesystem::path(options.work) / "lora";
}

std::string model_identity(const io::Checkpoint& checkpoint, const Communicator& world) {
    const auto names = checkpoint.names();
    std::vector<std::int64_t> fingerprints(names.size());
    const Range mine = share(static_cast<int>(names.size()), world.size(), world.rank()); // neighbours share shards
    for (int i = mine.begin; i < mine.end; ++i)
        fingerprints[i] = static_cast<std::int64_t>(checkpoint.fingerprint(names[i]));
    world.sum(fingerprints.data(), fingerprints.size());
    return checkpoint.identity(fingerprints);
}

InputIdentity identify(const RunInput& input, const Communicator& world) {
    return {model_identity(input.checkpoint, world),
            world.broadcast(world.rank() == 0 ? input.tokens.identity() : std::string(), 0)};
}

io::HiddenStoreInfo hidden_store_info(const Options& options, const RunInput& input, const InputIdentity& identity,
                                      Arithmetic arithmetic, int block) {
    return {.sequences = input.tokens.sequences(),
            .length = input.tokens.length(),
            .width = input.config.hidden_size,
            .dtype = stored_type(options) == "f32" ? io::DType::f32 : io::DType::bf16,
            .block = block,
            .layer = input.layout.layers_of(block).begin,
            .model_identity = identity.model,
            .tokens_identity = identity.tokens,
            .weights_dtype = options.dtype,
            .gemm = name_of(arithmetic),
            .run_deck = ""};
}

} // namespace lolcats
