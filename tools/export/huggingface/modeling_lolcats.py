"""Llama whose attention is softmax over near keys and learned linear attention over far ones (LoLCATs,
arXiv 2410.10254), with a cache of constant size.

For query n with near keys S(n) and far keys R(n), s_i = q_n . k_i / sqrt(d), c_n = max over S(n) of s_i, gamma =
sigmoid(window factor), and lambda = 1 (or 1 - gamma):

    weight_i = gamma exp(s_i - c_n)              for i in S(n)
    weight_j = lambda phi_q(q_n) . phi_k(k_j)    for j in R(n)
    y_n = sum weight v / sum weight

Shapes: B sequences of T tokens, H query heads on K key/value heads of dimension d, feature maps with p outputs, window w.
Values carry a column of ones in the linear branch, so that a state [p, d + 1] holds both sum phi v and sum phi.
"""

import inspect

import torch
from torch import nn
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import (
    LlamaForCausalLM,
    LlamaMLP,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    repeat_kv,
)

from .configuration_lolcats import LolcatsConfig

FLOOR = 1e-12
INITIAL_WINDOW_FACTOR = -2.1972245773362196  # gamma = 0.1
# The argument and output that hold the cache were called past_key_values once.
CACHE_NAME = next(name for name in ("cache", "past_key_values")
                  if name in inspect.signature(LlamaForCausalLM.forward).parameters)


# --- Feature maps -------------------------------------------------------------------------------------------------

def shifted_exponentials(z):
    return torch.exp(z - z.amax(-1, keepdim=True))


def neighbours(r):
    return r * r.roll(1, -1)


ACTIVATIONS = {
    "hedgehog": lambda z: torch.cat([z.softmax(-1), (-z).softmax(-1)], -1),
    "hedgehog_half": lambda z: z.softmax(-1),
    "t2r": torch.relu,
    "exp_dim": lambda z: torch.cat([shifted_exponentials(z), shifted_exponentials(-z)], -1),
    "exp_dim_half": shifted_exponentials,
    "pos_elu": lambda z: 1 + nn.functional.elu(z),
    "dpfp": lambda z: neighbours(torch.cat([z, -z], -1).relu()),
}


class FeatureProjection(nn.Module):
    """x W + b, a weight [d, f] and, for t2r, one number of bias a head."""

    def __init__(self, config):
        super().__init__()
        heads = config.num_attention_heads
        self.layer = nn.Parameter(torch.empty(heads, config.head_dim, config.feature_dim))
        self.bias = nn.Parameter(torch.empty(1, heads, 1, 1)) if config.feature_map == "t2r" else None

    def forward(self, x):
        z = torch.einsum("bhtd,hdf->bhtf", x, self.layer.float())
        return z if self.bias is None else z + self.bias.float()


class FeatureMap(nn.Module):
    """phi: [B, H, T, d] -> [B, H, T, p] in float32."""

    def __init__(self, config):
        super().__init__()
        self.mlp = FeatureProjection(config)
        self.activation = ACTIVATIONS[config.feature_map]

    def forward(self, x):
        return self.activation(self.mlp(x.float())).clamp_min(FLOOR)


# --- Cache --------------------------------------------------------------------------------------------------------

class LolcatsCacheLayer(CacheLayerMixin):
    """What a layer keeps of the tokens it has seen. Its size does not depend on their number.

    near_keys, near_values: [B, K, W, d], the newest W tokens, oldest first; W = 2 w (terrace), w (sliding), 0 (none).
    state: [B, H, p, d + 1] float32, sum of phi_k(k) [v, 1] over far keys.
    pending: the same, terrace only: keys more than w back whose chunk the next query may still see by softmax. It goes
        into the state at the next chunk's first token, so that a chunk turns far as a whole but costs a key a step.
    seen: [B], tokens of each sequence, padding left out.
    """

    is_compileable = True
    is_croppable = False
    is_sliding = False
    supports_early_init = False
    ARRAYS = ("near_keys", "near_values", "state", "pending", "seen")

    def __init__(self, config):
        super().__init__()
        self.form, self.window = config.attention_form, config.window_size
        self.kept = {"terrace": 2 * self.window, "sliding": self.window, "none": 0}[self.form]
        self.near_shape = (config.num_key_value_heads, self.kept, config.head_dim)
        self.state_shape = (config.num_attention_heads, config.feature_size, config.head_dim + 1)
        self.cumulative_length = torch.zeros((), dtype=torch.long)

    def lazy_initialization(self, key_states, value_states=None):
        batch, self.device = key_states.shape[0], key_states.device
        near = {"size": (batch, *self.near_shape), "dtype": key_states.dtype, "device": self.device}
        self.near_keys, self.near_values = torch.zeros(**near), torch.zeros(**near)
        self.state = torch.zeros(batch, *self.state_shape, device=self.device)
        self.pending = torch.zeros_like(self.state) if self.form == "terrace" else None
        self.seen = torch.zeros(batch, dtype=torch.long, device=self.device)
        self.cumulative_length = self.cumulative_length.to(self.device)
        self.is_initialized = True

    @property
    def batch_size(self):
        return self.seen.shape[0] if self.is_initialized else -1

    def arrays(self):
        return {name: getattr(self, name) for name in self.ARRAYS if getattr(self, name, None) is not None}

    def write(self, tokens, **arrays):
        """In place, as compiled graphs expect; `tokens` columns more have been seen."""
        for name, value in arrays.items():
            if value is not None:
                getattr(self, name).copy_(value.detach())
        self.cumulative_length.add_(tokens)

    def update(self, key_states, value_states, *args, **kwargs):
        raise NotImplementedError("this cache holds no keys of all tokens: attention reads and writes it itself")

    def get_mask_sizes(self, query_length):
        return self.kept + query_length, 0

    def get_seq_length(self):
        """Columns seen, padding included."""
        return int(self.cumulative_length)

    def get_max_length(self):
        return -1

    def reset(self):
        for array in self.arrays().values():
            array.zero_()
        self.cumulative_length.zero_()

    def crop(self, tokens_to_remove):
        if tokens_to_remove != 0:
            raise RuntimeError("a state of constant size cannot forget its last tokens: copy the cache before them")

    def change_batch(self, change):
        for name, array in self.arrays().items():
            setattr(self, name, change(array))

    def reorder_cache(self, beam_idx):
        self.change_batch(lambda array: array.index_select(0, beam_idx.to(array.device)))

    def batch_repeat_interleave(self, repeats):
        self.change_batch(lambda array: array.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices):
        self.change_batch(lambda array: array[indices])

    def offload(self):
        self.change_batch(lambda array: array.to("cpu", non_blocking=True))

    def prefetch(self):
        self.change_batch(lambda array: array.to(self.device, non_blocking=True))


class LolcatsCache(Cache):
    """A LolcatsCacheLayer for every layer: pass one to continue a sequence, or let `generate` make it."""

    def __init__(self, config):
        super().__init__(layers=[LolcatsCacheLayer(config) for _ in range(config.num_hidden_layers)])


# --- Attention ----------------------------------------------------------------------------------------------------

def take(x, index):
    """x[b, :, index[b, i], :] for x: [B, ., N, .] and index: [B, n]."""
    return x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def with_ones(v):
    return nn.functional.pad(v, (0, 1), value=1.0)


def in_chunks(x, chunk):
    return x.unflatten(2, (-1, chunk))


def with_chunk_before(x):
    """[B, H, M, c, .] -> [B, H, M, 2 c, .]: each chunk behind the one before it; zeros before the first."""
    return torch.cat([nn.functional.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], 3)


class LolcatsAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim, self.heads = config.head_dim, config.num_attention_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.form, self.window = config.attention_form, config.window_size
        self.scaling = self.head_dim**-0.5
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=bias)
        self.feature_map_q = FeatureMap(config)
        self.feature_map_k = FeatureMap(config)
        self.window_factors = nn.Parameter(torch.empty(1, self.heads, 1, 1)) if self.form != "none" else None

    def forward(self, hidden_states, position_embeddings, lengths, cache_layer):
        """lengths: [B], how many of the T tokens count, the others behind them being padding; None: all of them."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (projection(hidden_states).view(shape).transpose(1, 2)
                   for projection in (self.q_proj, self.k_proj, self.v_proj))
        dtype = q.dtype
        with torch.autocast(q.device.type, enabled=False):
            q, k = (x.to(dtype) for x in apply_rotary_pos_emb(q.float(), k.float(), *position_embeddings))
            if cache_layer is not None and not cache_layer.is_initialized:
                cache_layer.lazy_initialization(k)
                y = self.segments(q, k, v, lengths, cache_layer, is_first=True)
            elif cache_layer is not None and q.shape[2] == 1:
                y = self.step(q, k, v, lengths, cache_layer)
            else:
                y = self.segments(q, k, v, lengths, cache_layer, is_first=cache_layer is None)
        y = y.to(hidden_states.dtype).transpose(1, 2).flatten(2)
        return self.o_proj(y)

    # -- What both forms share

    def factors(self):
        """gamma and lambda, [1, H, 1, 1] each."""
        gamma = torch.sigmoid(self.window_factors.float())
        return gamma, 1 - gamma if self.config.affine_attention_factors else torch.ones_like(gamma)

    def near_weights(self, scores, near, gamma):
        """gamma exp(s - c) where `near`, else 0; a query always sees itself, so that c is finite."""
        scores = scores.masked_fill(~near, float("-inf"))
        return gamma * torch.exp(scores - scores.amax(-1, keepdim=True))

    def divide(self, sums):
        """y from [sum weight v, sum weight]."""
        floor = FLOOR if self.form == "none" else 0.0
        return sums[..., :-1] / (sums[..., -1:] + floor)

    # -- One token, from the cache

    def step(self, q, k, v, lengths, cache):
        """q: [B, H, 1, d], k and v: [B, K, 1, d]. Every sequence may be at another place of its chunk."""
        old, n, w = cache.arrays(), cache.seen, self.window
        new = self.absorb(old, k, v)
        q, far = q.float(), new["state"]
        phi_q = self.feature_map_q(q)
        if self.form == "none":
            y = self.divide(phi_q @ far)
        else:
            gamma, factor = self.factors()
            place = n[:, None] - cache.kept + 1 + torch.arange(cache.kept, device=n.device)
            first = (n // w - 1) * w if self.form == "terrace" else n - w + 1
            near = place >= first.clamp_min(0)[:, None]
            keys, values = (repeat_kv(new[name].float(), self.group) for name in ("near_keys", "near_values"))
            weights = self.near_weights(q @ keys.transpose(-1, -2) * self.scaling, near[:, None, None], gamma)
            y = self.divide(weights @ with_ones(values) + factor * phi_q @ far)
        new["seen"] = n + 1
        if lengths is not None:  # padding leaves no trace
            counts = lengths > 0
            new = {name: torch.where(counts.view(-1, *[1] * (value.dim() - 1)), value, old[name])
                   for name, value in new.items()}
        cache.write(1, **new)
        return y

    def absorb(self, old, k, v):
        """The cache's arrays as the query of the token sees them, the token itself among them."""
        n, w = old["seen"][:, None, None, None], self.window
        new = {name: array for name, array in old.items() if name != "seen"}
        if self.form == "none":
            new["state"] = old["state"] + self.outer(k, v)
            return new
        slot = slice(-w, -w + 1 or None)  # of the key that is w back
        leaving = self.outer(old["near_keys"][:, :, slot], old["near_values"][:, :, slot]) * (n >= w)
        if self.form == "terrace":
            is_boundary = n % w == 0
            new["state"] = old["state"] + old["pending"] * is_boundary
            new["pending"] = old["pending"] * ~is_boundary + leaving
        else:
            new["state"] = old["state"] + leaving
        new["near_keys"] = torch.cat([old["near_keys"][:, :, 1:], k], 2)
        new["near_values"] = torch.cat([old["near_values"][:, :, 1:], v], 2)
        return new

    def outer(self, k, v):
        """[B, H, p, d + 1]: sum over keys of phi_k(k) [v, 1]."""
        phi = self.feature_map_k(repeat_kv(k.float(), self.group))
        return phi.transpose(-1, -2) @ with_ones(repeat_kv(v.float(), self.group))

    # -- Many tokens at once

    def segments(self, q, k, v, lengths, cache, is_first):
        """The parallel form, in pieces that bound its memory; without a cache one that lives as long as the call."""
        length, size = q.shape[2], self.config.prefill_segment
        if length <= size:
            return self.parallel(q, k, v, lengths, cache, is_first)
        if cache is None:
            cache = LolcatsCacheLayer(self.config)
            cache.lazy_initialization(k)
        outputs = []
        for begin in range(0, length, size):
            part = slice(begin, begin + size)
            count = None if lengths is None else (lengths - begin).clamp(0, size)
            outputs.append(self.parallel(q[:, :, part], k[:, :, part], v[:, :, part], count, cache,
                                         is_first and begin == 0))
        return torch.cat(outputs, 2)

    def parallel(self, q, k, v, lengths, cache, is_first):
        """Continues from the cache in chunks of w: what it holds as near keys is put before the new tokens, so that the
        first of them starts a chunk, and its state is what is far of that chunk. Time and memory are O(T)."""
        batch, _, tokens, _ = q.shape
        if lengths is None:
            lengths = torch.full((batch,), tokens, device=q.device)
        held, before = (0, None) if is_first else (cache.kept, self.held(cache))
        chunk = min(self.window, held + tokens)
        padded = -(-(held + tokens) // chunk) * chunk
        if is_first:
            q_local, k_local, v_local = (nn.functional.pad(x, (0, 0, 0, padded - tokens)) for x in (q, k, v))
            total = lengths
        else:
            index = torch.arange(padded, device=q.device)
            q_local = take(q, (index - before[:, None]).clamp(0, tokens - 1))
            from_cache = (index + held - before[:, None]).clamp(0, held + tokens - 1)
            k_local = take(torch.cat([cache.near_keys, k], 2), from_cache)
            v_local = take(torch.cat([cache.near_values, v], 2), from_cache)
            total = before + lengths
        y, arrays = self.chunked(q_local, k_local, v_local, total, chunk, None if is_first else cache.state)
        if cache is not None:
            self.store(cache, k, v, lengths, total, chunk, *arrays)
        y = y[:, :, :tokens] if is_first else take(y, before[:, None] + torch.arange(tokens, device=q.device))
        return y

    def held(self, cache):
        """[B], how many of the cache's near keys come before the new tokens: those that its state does not hold."""
        n, w = cache.seen, self.window
        if self.form == "terrace":
            return n - (((n - 1).clamp_min(0) // w - 1) * w).clamp_min(0)
        return n.clamp_max(cache.kept)

    def chunked(self, q, k, v, total, chunk, state):
        """Attention of whole chunks, the first of which sees `state`. total: [B], how many tokens count.

        Returns y, [B, H, N, d], and what the cache is made from: phi_k, [v, 1], and the states after each chunk."""
        q, k, v = q.float(), repeat_kv(k.float(), self.group), with_ones(repeat_kv(v.float(), self.group))
        counts = torch.arange(k.shape[2], device=k.device) < total[:, None]
        phi_k = self.feature_map_k(k) * counts[:, None, :, None]
        q_c, k_c, v_c, phi_q_c, phi_k_c = (in_chunks(x, chunk) for x in (q, k, v, self.feature_map_q(q), phi_k))
        states = (phi_k_c.transpose(-1, -2) @ v_c).cumsum(2)
        if state is not None:
            states = states + state[:, :, None]
        start = torch.zeros_like(states[:, :, :1]) if state is None else state[:, :, None]
        far = torch.cat([start, start, states[:, :, :-2]], 2)[:, :, :states.shape[2]]
        phi_q_c = phi_q_c if self.form == "none" else phi_q_c * self.factors()[1][:, :, None]
        weights = self.local_weights(q_c, k_c, phi_q_c, phi_k_c, chunk)
        sums = weights @ with_chunk_before(v_c) + phi_q_c @ far
        return self.divide(sums).flatten(2, 3), (phi_k, v, states)

    def local_weights(self, q, k, phi_q, phi_k, chunk):
        """[B, H, M, c, 2 c]: weights of the keys of a query's chunk and of the chunk before."""
        place = torch.arange(chunk, device=q.device)[:, None] + chunk
        key = torch.arange(2 * chunk, device=q.device)
        visible = (key <= place).expand(q.shape[2], -1, -1) & (
            (key >= chunk) | (torch.arange(q.shape[2], device=q.device)[:, None, None] > 0))
        near = visible & (key > place - chunk) if self.form == "sliding" else visible
        weights = 0
        if self.form != "none":
            scores = q @ with_chunk_before(k).transpose(-1, -2) * self.scaling
            weights = self.near_weights(scores, near, self.factors()[0][:, :, None])
        if self.form != "terrace":
            far = visible if self.form == "none" else visible & ~near
            weights = weights + (phi_q @ with_chunk_before(phi_k).transpose(-1, -2)) * far
        return weights

    def store(self, cache, k, v, lengths, total, chunk, phi_k, v_ones, states):
        """Writes what is left when `total` tokens from the first chunk on have gone by, `lengths` of them new."""
        seen, w = cache.seen + lengths, self.window
        if self.form == "none":
            return cache.write(k.shape[2], state=states[:, :, -1], seen=seen)
        # Whole chunks that are far for good, then what of the next one is w or more back.
        whole = ((total - 1).div(w, rounding_mode="floor") - 1).clamp_min(0)
        index = (whole - 1).clamp_min(0)[:, None, None, None, None]
        state = states.gather(2, index.expand(-1, self.heads, 1, *states.shape[3:]))[:, :, 0]
        state = torch.where((whole > 0)[:, None, None, None], state, cache.state)
        place = whole[:, None] * w + torch.arange(chunk, device=k.device)
        old = (place < total[:, None] - w)[:, None, :, None]
        place = place.clamp_max(phi_k.shape[2] - 1)
        pending = (take(phi_k, place) * old).transpose(-1, -2) @ take(v_ones, place)
        newest = lengths[:, None] + torch.arange(cache.kept, device=k.device)
        arrays = {"near_keys": take(torch.cat([cache.near_keys, k], 2), newest),
                  "near_values": take(torch.cat([cache.near_values, v], 2), newest)}
        if self.form == "terrace":
            arrays |= {"state": state, "pending": pending}
        else:
            arrays["state"] = state + pending
        cache.write(k.shape[2], seen=seen, **arrays)


# --- The model ----------------------------------------------------------------------------------------------------

class LolcatsDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = LolcatsAttention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_states, position_embeddings, lengths=None, cache_layer=None):
        x = hidden_states
        x = x + self.self_attn(self.input_layernorm(x), position_embeddings, lengths, cache_layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class LolcatsPreTrainedModel(LlamaPreTrainedModel):
    config_class = LolcatsConfig
    config: LolcatsConfig
    _no_split_modules = ["LolcatsDecoderLayer"]
    _keep_in_fp32_modules_strict = ["feature_map_q", "feature_map_k", "window_factors"]
    _supports_flash_attn = False
    _supports_sdpa = False
    _supports_flex_attn = False
    _supports_attention_backend = False
    _can_compile_fullgraph = True
    _can_record_outputs = {}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        start = {}
        if isinstance(module, FeatureProjection):
            start = {module.layer: torch.eye(*module.layer.shape[1:]).expand_as(module.layer)}
            if module.bias is not None:
                start[module.bias] = torch.zeros(())
        elif isinstance(module, LolcatsAttention) and module.window_factors is not None:
            start = {module.window_factors: torch.tensor(INITIAL_WINDOW_FACTOR)}
        for parameter, value in start.items():
            if not getattr(parameter, "_is_hf_initialized", False):
                parameter.copy_(value)


class Packing:
    """Padding put behind the tokens of each sequence, so that chunks are counted from its first token."""

    def __init__(self, attention_mask, tokens):
        counts = attention_mask[:, -tokens:] != 0
        self.lengths = counts.sum(-1)
        self.order = torch.argsort(~counts, dim=-1, stable=True) if tokens > 1 else None

    def pack(self, x):
        return x if self.order is None else torch.take_along_dim(x, self.order.view(*self.order.shape, *[1] * (
            x.dim() - 2)), 1)

    def unpack(self, x):
        return x if self.order is None else torch.take_along_dim(x, self.order.argsort(-1)[..., None], 1)


class LolcatsModel(LolcatsPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.padding_idx, self.vocab_size = config.pad_token_id, config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([LolcatsDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, cache=None, inputs_embeds=None,
                use_cache=None, output_hidden_states=None, past_key_values=None, **kwargs):
        """attention_mask: [B, T] or, with what the cache has seen before it, [B, S + T]; 0 marks padding anywhere."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError(f"attention_mask has {attention_mask.dim()} dimensions: near and far keys follow from the "
                             "tokens' order, so only padding can be masked, [B, T]")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = self.usable_cache(cache if cache is not None else past_key_values, use_cache)
        packing = None if attention_mask is None else Packing(attention_mask, x.shape[1])
        position_ids = self.positions(position_ids, x, cache, packing)
        x = x if packing is None else packing.pack(x)
        angles = self.rotary_emb(x.float(), position_ids)
        states = []
        for i, layer in enumerate(self.layers):
            states.append(x)
            x = layer(x, angles, None if packing is None else packing.lengths, None if cache is None else cache.layers[i])
        x = self.norm(x)
        unpack = packing.unpack if packing is not None else lambda y: y
        hidden_states = tuple(unpack(y) for y in [*states, x]) if output_hidden_states else None
        return BaseModelOutputWithPast(last_hidden_state=unpack(x), hidden_states=hidden_states, **{CACHE_NAME: cache})

    def usable_cache(self, cache, use_cache):
        if cache is None:
            use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
            return LolcatsCache(self.config) if use_cache else None
        if not isinstance(cache, LolcatsCache):
            if cache.get_seq_length() > 0:
                raise ValueError(f"{type(cache).__name__} holds keys that this model cannot use: give a LolcatsCache")
            return LolcatsCache(self.config)
        return cache

    def positions(self, position_ids, x, cache, packing):
        """[B or 1, T] in the order of the packed tokens."""
        if position_ids is not None:
            return position_ids if packing is None else packing.pack(position_ids.expand(x.shape[:2]))
        positions = torch.arange(x.shape[1], device=x.device)[None]
        if cache is not None and cache.layers[0].is_initialized:
            positions = positions + cache.layers[0].seen[:, None].to(x.device)
        return positions


class LolcatsForCausalLM(LolcatsPreTrainedModel, LlamaForCausalLM):
    def __init__(self, config):
        LolcatsPreTrainedModel.__init__(self, config)
        self.model = LolcatsModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        if generation_config.use_cache is not False and model_kwargs.get(CACHE_NAME) is None:
            model_kwargs[CACHE_NAME] = LolcatsCache(self.config)

    @staticmethod
    def create_masks_for_generate(attention_mask=None, **kwargs):
        return attention_mask


__all__ = ["LolcatsCache", "LolcatsForCausalLM", "LolcatsModel", "LolcatsPreTrainedModel"]
