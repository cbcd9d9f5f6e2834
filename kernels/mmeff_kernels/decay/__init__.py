"""Linear attention with a decaying state: S_t = exp(g_t) S_{t-1} + k_t v_t^T, o_t = S_t^T q_t, from one end or both."""

from .op import decay_attention
from .reference import decay_reference, decay_step

__all__ = ["decay_attention", "decay_reference", "decay_step"]
