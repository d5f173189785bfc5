#pragma once
/// How decoder layers are cut into blocks, and blocks dealt to the ranks of a pipeline.

namespace lolcats {

/// The half-open interval [begin, end).
struct Range {
    int begin;
    int end;

    [[nodiscard]] int size() const { return end - begin; }
    [[nodiscard]] bool contains(int i) const { return begin <= i && i < end; }
    bool operator==(const Range&) const = default;
};

/// Part `index` of `parts` contiguous parts of 0 .. count-1. Sizes differ by at most one; earlier parts are the larger.
Range share(int count, int parts, int index);

/// How the decoder layers are cut into blocks of `block_layers` (k) consecutive ones; the last block may be shorter.
struct BlockLayout {
    int layers;       ///< L
    int block_layers; ///< k, 1 .. L
    int blocks;       ///< c = ceil(L / k)

    [[nodiscard]] Range layers_of(int block) const;
    /// Of consecutive blocks, at least one.
    [[nodiscard]] Range layers_of(Range of_blocks) const {
        return {layers_of(of_blocks.begin).begin, layers_of(of_blocks.end - 1).end};
    }
    /// The block that holds `layer`.
    [[nodiscard]] int block_of(int layer) const { return layer / block_layers; }
};

/// `block_layers` 0 means all layers in one block (joint). More layers in a block than the model has is an Error.
BlockLayout make_block_layout(int layers, int block_layers);

/// Ranks in the pipeline for a run of `ranks` on a model of `blocks`: `requested`, or for 0 the largest divisor of
/// `ranks` that is at most `blocks`. A request that does not divide the ranks or exceeds the blocks is an Error.
int pipeline_size(int ranks, int blocks, int requested);

/// The blocks that pipeline coordinate `stage` owns.
Range blocks_of_stage(int blocks, int pipeline_ranks, int stage);

} // namespace lolcats
