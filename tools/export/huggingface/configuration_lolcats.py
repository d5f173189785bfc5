"""Configuration of a linearised Llama: a Llama's, and the form of its attention."""

from transformers.models.llama.configuration_llama import LlamaConfig

ATTENTION_FORMS = ("terrace", "sliding", "none")
FEATURE_MAPS = ("hedgehog", "hedgehog_half", "t2r", "exp_dim", "exp_dim_half", "pos_elu", "dpfp")


class LolcatsConfig(LlamaConfig):
    """
    attention_form: which keys a query sees by softmax. "terrace": those of its chunk of `window_size` tokens and of the
        chunk before; "sliding": the last `window_size`; "none": no key, all by linear attention.
    feature_map, feature_dim: map of the linear attention, and f, the columns of its weight.
    affine_attention_factors: linear attention weighs 1 - gamma, not 1, beside a softmax that weighs gamma.
    prefill_segment: tokens that are computed at once; longer inputs go through in pieces, so that memory stays flat.
    """

    model_type = "lolcats"
    attention_form: str = "terrace"
    window_size: int = 64
    feature_map: str = "hedgehog"
    feature_dim: int = 64
    affine_attention_factors: bool = False
    prefill_segment: int = 2048

    def __init__(self, attention_form="terrace", window_size=64, feature_map="hedgehog", feature_dim=64,
                 affine_attention_factors=False, prefill_segment=2048, **kwargs):
        if attention_form not in ATTENTION_FORMS:
            raise ValueError(f"attention_form '{attention_form}' is not one of {', '.join(ATTENTION_FORMS)}")
        if feature_map not in FEATURE_MAPS:
            raise ValueError(f"feature_map '{feature_map}' is not one of {', '.join(FEATURE_MAPS)}")
        if window_size < 1 or feature_dim < 1 or prefill_segment < 1:
            raise ValueError("window_size, feature_dim and prefill_segment must be at least 1")
        self.attention_form = attention_form
        self.window_size = window_size
        self.feature_map = feature_map
        self.feature_dim = feature_dim
        self.affine_attention_factors = affine_attention_factors
        self.prefill_segment = prefill_segment
        super().__init__(**kwargs)

    def validate_architecture(self):
        """Heads need not fill the width: `head_dim` says how wide they are."""
        if self.num_attention_heads % self.num_key_value_heads != 0:
            raise ValueError(f"num_attention_heads ({self.num_attention_heads}) is not a multiple of "
                             f"num_key_value_heads ({self.num_key_value_heads})")

    @property
    def feature_size(self):
        """d', the outputs of a feature map."""
        return self.feature_dim * (2 if self.feature_map in ("hedgehog", "exp_dim", "dpfp") else 1)


__all__ = ["LolcatsConfig"]
