"""TRL's reward trainer, whose batches hold ranked groups of K completions instead of pairs: K forward passes a group.

With K = 2 loss and gradients are TRL's. All that is taken from TRL and transformers:

| seam                              | what we do with it                                                               |
|-----------------------------------|----------------------------------------------------------------------------------|
| `__init__`                        | extended: our collator in the place of TRL's; heads pass its check of one label  |
| `_prepare_dataset`                | replaced: groups come encoded and checked; TRL would drop long rows silently     |
| `_set_signature_columns_if_needed`| replaced: the columns of a group, and its length for sampling by length          |
| `compute_loss`                    | replaced: TRL's splits its rows into two halves, which only pairs have           |
| `get_batch_samples`               | extended (transformers'): count the groups of an optimizer step                  |
| `get_eval_dataloader`             | extended (transformers'): held-out groups keep their order, none is dropped      |
| `log`                             | extended: figures over all pairs since the last log, in TRL's names              |
| attributes                        | `_metrics`, `_total_train_tokens`, `_signature_columns`                          |

transformers divides each micro-batch's loss by their number, and data parallelism averages gradients over processes: a
mean of means. It is the mean over all groups of the step only where micro-batches are equally large, so each is
weighed by its groups over the average. Left out: bounding the rows of a forward pass (`docs/reward.md`), a prompt's
tokens shared by its completions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from rlhf_pipeline.ranking.collator import GROUP, GroupCollator
from rlhf_pipeline.ranking.figures import FIGURES, group_figures, metrics, totals
from rlhf_pipeline.ranking.losses import centring, comparison_losses, group_means

Batch = dict[str, Tensor]

SEAMS: dict[str, tuple[str, ...]] = {
    "_prepare_dataset": ("dataset",),
    "_set_signature_columns_if_needed": (),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "get_eval_dataloader": ("eval_dataset",),
    "log": ("logs", "start_time"),
}
"""Method -> its first parameters, without self."""


class RankingTrainer(RewardTrainer):
    """Train a reward model on groups, each one prompt's ranked completions (`ranking/collator.py`).

    Arguments are TRL's, without a collator; `label_smoothing` is the probability that a label is wrong. A model with
    M labels is an ensemble of M heads: the loss is the mean of theirs, and figures are of their mean score.
    """

    args: RewardConfig
    model: Any
    _signature_columns: Any

    def __init__(self, *, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        config = kwargs["model"].config
        heads, config.num_labels = config.num_labels, 1  # TRL takes no other number
        super().__init__(**kwargs)
        config.num_labels = heads
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        self.data_collator = GroupCollator(cast(int, tokenizer.pad_token_id), cast(Any, self.args.pad_to_multiple_of))
        self.label_smoothing = label_smoothing
        self.evaluated: Tensor | None = None  # (G, 8) figures of the last evaluation, on the CPU
        self._figures: dict[str, list[Tensor]] = {"train": [], "eval": []}
        self._groups = 0.0  # of an average micro-batch of this optimizer step

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Return a data set of groups as it is."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        """Keep a group's columns, and the one that `train_sampling_strategy` goes by."""
        self._signature_columns = [*GROUP, self.args.length_column_name]

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Collect the micro-batches of an optimizer step, and count its groups over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            groups = torch.tensor(sum(len(batch["comparisons"]) for batch in batches) / len(batches), device=device)
            self._groups = float(self.accelerator.reduce(groups, "mean"))
        return batches, items

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Load all held-out groups in their order, also where training drops a short last batch or goes by length."""
        args = self.args
        asked = args.dataloader_drop_last, args.train_sampling_strategy
        args.dataloader_drop_last, args.train_sampling_strategy = False, "sequential"
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            args.dataloader_drop_last, args.train_sampling_strategy = asked

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the batch's groups; in training, weighed by how many they are."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        scores = outputs.logits.float()
        losses = torch.stack([self.group_losses(head, inputs) for head in scores.unbind(dim=1)]).mean(dim=0)
        self._count(group_figures(scores.mean(dim=1), inputs))
        loss = losses.mean()
        if self.model.training and self._groups:
            loss = loss * (len(losses) / self._groups)
        return (loss, outputs) if return_outputs else loss

    def group_losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Compute the losses (G,) of a batch's groups from the scores (R,) of its rows."""
        better, worse = scores[batch["better"]], scores[batch["worse"]]
        losses = comparison_losses(better - worse, batch["margin"], batch["tied"], self.label_smoothing)
        if self.args.center_rewards_coefficient is not None:
            losses = losses + self.args.center_rewards_coefficient * centring(better, worse)
        return group_means(losses, batch["comparisons"])

    def _count(self, figures: Tensor) -> None:
        """Keep the figures of a batch; in evaluation of all processes, without what fills up the last batch."""
        if self.model.training:
            self._figures["train"].append(figures)
        else:
            self._figures["eval"].append(self.accelerator.gather_for_metrics(figures))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the metrics of all groups since the last log of this kind; every process calls this."""
        mode = "train" if self.model.training else "eval"
        if self._figures[mode]:
            figures = torch.cat(self._figures[mode])
            self._figures[mode].clear()
            if mode == "train":
                figures = self.accelerator.gather(totals(figures))
                self._total_train_tokens += (
                    round(figures[:, FIGURES.index("tokens")].sum().item()) // self.get_tp_size()
                )
            else:
                self.evaluated = figures.cpu()
            found = {"num_tokens": float(self._total_train_tokens), **metrics(figures)}
            self._metrics[mode].update({name: [value] for name, value in found.items()})
        super().log(logs, start_time)
