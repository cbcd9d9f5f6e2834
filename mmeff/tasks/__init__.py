"""LightningModules: what is trained, and how."""

from mmeff.tasks.classify import Classification, Classify, JointClassify
from mmeff.tasks.mix import Mix
from mmeff.tasks.optim import AdamWCosine

__all__ = ["AdamWCosine", "Classification", "Classify", "JointClassify", "Mix"]
