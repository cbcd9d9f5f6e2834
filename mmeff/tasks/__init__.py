"""LightningModules: what is trained, and how."""

from mmeff.tasks.base import Task
from mmeff.tasks.classify import Classification, Classify, JointClassify
from mmeff.tasks.mix import Mix
from mmeff.tasks.optim import OptimizerConfig

AdamWCosine = OptimizerConfig  # its name when it knew no other optimizer

__all__ = ["Classification", "Classify", "JointClassify", "Mix", "OptimizerConfig", "Task"]
