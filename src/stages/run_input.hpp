#pragma once
/// What every stage opens first: the model's shape and weights, the tokens, and how layers are cut into blocks.
#include "io/checkpoint.hpp"
#include "io/hidden_store.hpp"
#include "io/token_store.hpp"
#include "lolcats/model.hpp"
#include "lolcats/options.hpp"
#include "src/comm/array_communicator.hpp"
#include "src/comm/mesh.hpp"
#include "src/comm/stage_link.hpp"
#include "src/model/embedding.hpp"
#include "src/model/weights.hpp"

#include <filesystem>
#include <span>
#include <vector>

namespace lolcats {

struct RunInput {
    /// Throws Error if an option is missing or the model cannot be computed on these tokens.
    explicit RunInput(const Options& options);
    RunInput(const RunInput&) = delete;
    RunInput& operator=(const RunInput&) = delete;

    [[nodiscard]] int length() const { return static_cast<int>(tokens.length()); }
    [[nodiscard]] AttentionShape shape(int batch) const { return attention_shape(config, batch, length()); }
    /// Token embeddings of the sequences, x[count T, D].
    void embed(std::span<const std::int64_t> sequences, const Matrix<float>& x) const;

    ModelConfig config;
    io::Checkpoint checkpoint;
    Storage storage;
    io::TokenStore tokens;
    BlockLayout layout;

private:
    mutable Embedding embedding_; ///< keeps memory from one use to the next
};

/// What carries arrays between ranks, as asked.
ArrayTransport array_transport(const Options& options);

/// How the residual stream of stages 0 and 1 travels: as they round it.
Wire residual_wire(Storage storage);

/// The arithmetic of matrix products: as asked; by default exact for f32 weights and what rank 0 measured to be faster
/// for others. Throws Error if it does not go with the type of the weights. Collective.
Arithmetic choose_arithmetic(const Options& options, const Communicator& world);

/// Whether a run reads hidden states that are there, or goes on with them.
enum class StoredStates { read, unread };

/// The same, but what was measured is kept in WORK/arithmetic.txt, and later attempts on the work directory use it too:
/// where one goes on from another, they must not mix. Without that file, and with options.fresh, hidden states that are
/// read decide. Collective.
Arithmetic settle_arithmetic(const Options& options, const Communicator& world,
                             StoredStates states = StoredStates::unread);

std::filesystem::path hidden_path(const Options& options, int block);
const char* name_of(Arithmetic arithmetic);

std::filesystem::path transfer_directory(const Options& options);
std::filesystem::path lora_directory(const Options& options);

/// io::Checkpoint::identity(), the work shared by the ranks. Collective.
std::string model_identity(const io::Checkpoint& checkpoint, const Communicator& world);

/// What tells the model and the tokens of a run from others.
struct InputIdentity {
    std::string model;  ///< io::Checkpoint::identity()
    std::string tokens; ///< io::TokenStore::identity()
};

/// The ranks share the work on the model; rank 0 reads all tokens. Collective.
InputIdentity identify(const RunInput& input, const Communicator& world);

/// What the store of a block's input is, or must be.
io::HiddenStoreInfo hidden_store_info(const Options& options, const RunInput& input, const InputIdentity& identity,
                                      Arithmetic arithmetic, int block);

} // namespace lolcats
