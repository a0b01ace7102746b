"""What a network is for: how a batch is split, the loss, the divergence from a teacher, the metrics."""

from compressor.tasks.base import Task
from compressor.tasks.classification import DEFAULT
from compressor.tasks.evaluation import Evaluation, agreement, evaluate
from compressor.tasks.find import find_task
from compressor.tasks.metrics import Mean, Metric, as_keys

__all__ = ["DEFAULT", "Evaluation", "Mean", "Metric", "Task", "agreement", "as_keys", "evaluate", "find_task"]
