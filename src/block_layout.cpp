#include "src/block_layout.hpp"

#include "lolcats/error.hpp"

#include <algorithm>

namespace lolcats {

Range share(int count, int parts, int index) {
    if (count < 0 || parts < 1 || index < 0 || index >= parts) {
        fail("share: part {} of {} parts of {} things does not exist", index, parts, count);
    }
    const int base = count / parts;
    const int larger = count % parts; // this many parts at the front get one more
    const int begin = index * base + std::min(index, larger);
    return {begin, begin + base + (index < larger ? 1 : 0)};
}

Range BlockLayout::layers_of(int block) const {
    if (block < 0 || block >= blocks) {
        fail("block {} does not exist: {} layers in blocks of {} make blocks 0 to {}", block, layers, block_layers,
             blocks - 1);
    }
    return {block * block_layers, std::min(layers, (block + 1) * block_layers)};
}

BlockLayout make_block_layout(int layers, int block_layers) {
    if (layers < 1) fail("a model needs at least 1 layer, not {}", layers);
    if (block_layers < 0 || block_layers > layers) {
        fail("block-layers is {} but the model has {} layers: choose 1 to {}, or 0 for all of them", block_layers,
             layers, layers);
    }
    const int k = block_layers == 0 ? layers : block_layers;
    return {layers, k, (layers + k - 1) / k};
}

int pipeline_size(int ranks, int blocks, int requested) {
    if (ranks < 1 || blocks < 1) fail("a mesh needs ranks and blocks, not {} and {}", ranks, blocks);
    int largest = std::min(ranks, blocks);
    while (ranks % largest != 0) --largest;
    if (requested == 0) return largest;
    if (requested < 0 || ranks % requested != 0) {
        fail("pipeline-ranks is {}, which does not divide the {} ranks of this run: use {}, or start a multiple of {} "
             "ranks",
             requested, ranks, largest, std::max(1, requested));
    }
    if (requested > blocks) {
        fail("pipeline-ranks is {} but there are only {} blocks: use {}, or cut the model into more blocks with a "
             "smaller block-layers",
             requested, blocks, largest);
    }
    return requested;
}

Range blocks_of_stage(int blocks, int pipeline_ranks, int stage) {
    return share(blocks, pipeline_ranks, stage);
}

} // namespace lolcats
