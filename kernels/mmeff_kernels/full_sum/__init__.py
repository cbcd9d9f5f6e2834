"""Linear attention without an order: o_i = phi(q_i)^T sum_j phi(k_j) v_j^T / (phi(q_i)^T sum_j phi(k_j))."""

from .features import softmax_pairs, taylor
from .op import full_sum, full_sum_qkvpacked
from .reference import full_sum_reference

__all__ = ["full_sum", "full_sum_qkvpacked", "full_sum_reference", "softmax_pairs", "taylor"]
