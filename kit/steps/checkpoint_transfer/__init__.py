"""Step kinds of the checkpoint-transfer family; importing this package registers them."""

from kit.steps.checkpoint_transfer import evaluation, maps, unlearning

__all__ = ["evaluation", "maps", "unlearning"]
