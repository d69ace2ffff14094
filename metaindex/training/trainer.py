"""The loop: batches, gradients, steps, and in between the log, evaluations and checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from metaindex.encoders import identity
from metaindex.encoders.metaembed import MetaEmbed
from metaindex.errors import NonFiniteError
from metaindex.training import checkpoints, processes
from metaindex.training.chunks import derive
from metaindex.training.evaluating import evaluate
from metaindex.training.examples import Example, check_examples, identifier, without_right_negatives
from metaindex.training.loss import MMRLoss, groups_of
from metaindex.training.options import TrainingOptions
from metaindex.training.order import batches

_LOG = "log.jsonl"
_STEP_SEED = 1_000_003  # apart from one step to the next, for the two sides and the processes of each


def train(
    model: MetaEmbed,
    examples: Sequence[Example],
    options: TrainingOptions | None = None,
    *,
    loss: MMRLoss | None = None,
    evaluation: Sequence[Example] = (),
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Train what has gradients of ``model``, in place, and return the lines of the log.

    After ``with_lora`` that is the adapter, else all of the backbone; the Meta Tokens and the projection always. With
    torch.distributed every process calls this with the same arguments and a model of its own on its device.

    Args:
        examples: what is learned from. evaluation: what nDCG@10 and the loss of each group are measured on.
        options: see there. loss: by default the paper's groups as far as the model has tokens.
        output: a folder for log.jsonl and checkpoints; by default nothing is written.
        resume: go on from the last checkpoint below ``output``, if there is one.
        progress: draw a bar on stderr where that is a terminal.

    Raises:
        ValueError: fewer examples than a batch or than neighbours, nothing to train, checkpoints or ``resume`` without
            ``output``, or a checkpoint of another run. ShapeError: a group of the loss is larger than the model's tokens.
            NonFiniteError: the loss or its gradient is not finite. TypeError: an example that ``Example.of`` has not made.
    """
    check_examples("examples", examples)
    check_examples("evaluation", evaluation)
    options = TrainingOptions() if options is None else options
    loss = MMRLoss(groups_of(model.query_tokens, model.doc_tokens)) if loss is None else loss
    if output is None and (resume or options.save_every is not None):
        raise ValueError("output: expected a folder, which resume and save_every need, got None")
    with _own_seeds(model):
        run = _Run(model, examples, options, loss, evaluation, None if output is None else Path(output))
        return run.all(resume, progress)


class _Run:
    def __init__(
        self,
        model: MetaEmbed,
        examples: Sequence[Example],
        options: TrainingOptions,
        loss: MMRLoss,
        evaluation: Sequence[Example],
        output: Path | None,
    ) -> None:
        self.model, self.examples, self.options, self.loss = model, without_right_negatives(examples), options, loss
        self.evaluation, self.output = evaluation, output
        self.size = options.batch_size * processes.processes()
        if len(examples) < self.size:
            raise ValueError(f"examples: expected at least {self.size}, a batch of all processes, got {len(examples)}")
        if options.neighbours > len(examples):
            raise ValueError(f"neighbours: expected at most {len(examples)}, the number of examples, got {options.neighbours}")
        self.steps = options.epochs * (len(examples) // self.size) if options.steps is None else options.steps
        self.weights = {name: each for name, each in model.named_parameters() if each.requires_grad}
        if not self.weights:
            raise ValueError("model: expected weights with gradients, got none; set requires_grad of what is to be trained")
        if options.coverage and not hasattr(model.backbone, "peft_config"):
            raise ValueError("coverage: expected a model with an adapter, which metaindex.training.with_lora adds, got none")
        self.optimizer = _optimizer(model, self.weights, options)
        import transformers

        self.scheduler = transformers.get_scheduler(
            "constant_with_warmup" if options.schedule == "constant" else options.schedule,
            self.optimizer,
            num_warmup_steps=round(options.warmup * self.steps),
            num_training_steps=self.steps,
        )
        self.log: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def all(self, resume: bool, progress: bool) -> list[dict[str, Any]]:
        from tqdm.auto import tqdm

        done = self._resumed() if resume else 0
        self._start_log(done)
        shown = None if progress and processes.rank() == 0 else True
        with tqdm(total=self.steps, initial=done, unit="step", disable=shown) as bar:
            for step, batch in self._from(done):
                self._step(step, batch)
                bar.update()
        return self.log

    def _step(self, step: int, batch: list[int]) -> None:
        options, first = self.options, processes.rank() * self.options.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train(options.dropout)
        own = [self.examples[place] for place in batch[first : first + options.batch_size]]
        seed = options.seed * _STEP_SEED**2 + step * _STEP_SEED + 2 * processes.rank()
        found = derive(
            self.model,
            self.loss,
            own,
            chunk_size=options.chunk_size,
            cache=options.cache_gradients,
            bf16=options.bf16,
            coverage=options.coverage,
            seed=seed,
        )
        *losses, missed = processes.averaged(torch.stack([*found.by_group, found.uncovered])).tolist()
        if not all(map(math.isfinite, [*losses, missed])):
            raise NonFiniteError(f"loss: it is {[*losses, missed]} at step {step}; lower the learning rates, or raise warmup")
        processes.average_gradients(self.weights.values())
        longest = float("inf") if options.max_gradient_norm is None else options.max_gradient_norm
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), longest)
        if not torch.isfinite(norm):  # one step with it, and every weight is NaN
            raise NonFiniteError(f"gradient: its norm is {norm:g} at step {step}; lower the learning rates, or raise warmup")
        rates = self.scheduler.get_last_lr()
        self.optimizer.step()
        self.scheduler.step()
        if step % options.log_every == 0 or step == self.steps:
            line: dict[str, Any] = {"step": step, "loss": float(self.loss.total(torch.tensor(losses)))}
            line["losses"] = dict(zip(map(str, self.loss.groups), losses))
            line |= {"uncovered": missed} if options.coverage else {}
            self._write(line | {"gradient_norm": float(norm), "learning_rates": dict(zip(self._names(), rates))})
        last = step == self.steps
        if self.evaluation and (last or (options.evaluate_every and step % options.evaluate_every == 0)):
            self._evaluate(step)
        if options.save_every and (last or step % options.save_every == 0):
            self._save(step)

    def _from(self, done: int) -> Iterator[tuple[int, list[int]]]:
        """The numbers of the steps after ``done``, from 1, and the places of their examples."""
        options, each = self.options, len(self.examples) // self.size
        for epoch in range(done // each, -(-self.steps // each)):
            by_length, neighbours = options.by_length, options.neighbours
            found = batches(self.examples, self.size, options.seed, epoch, by_length=by_length, neighbours=neighbours)
            for number, batch in enumerate(found, epoch * each + 1):
                if done < number <= self.steps:
                    yield number, batch

    def _evaluate(self, step: int) -> None:
        if processes.rank() == 0:
            found = evaluate(
                self.model,
                self.evaluation,
                self.loss,
                batch_size=self.size,
                chunk_size=self.options.chunk_size or self.options.batch_size,
                bf16=self.options.bf16,
            )
            self._write({"step": step, "evaluation": found})
        processes.wait_for_all()

    def _save(self, step: int) -> None:
        if processes.rank() == 0:
            assert self.output is not None
            checkpoints.save(self.output, step, self.weights, self.optimizer, self.scheduler, self._told)
        processes.wait_for_all()

    def _resumed(self) -> int:
        assert self.output is not None
        return checkpoints.load(self.output, self.weights, self.optimizer, self.scheduler, self._told)

    @cached_property
    def _told(self) -> dict[str, Any]:
        """What a run that goes on must share with the one that began: all that the weights depend on."""
        options = dataclasses.asdict(self.options)
        for name in ("log_every", "evaluate_every", "save_every"):
            del options[name]
        digest = hashlib.sha256()
        for each in self.examples:
            digest.update(repr([identifier(every) for every in (each.query, each.positive, *each.negatives)]).encode())
        about = {"loss": repr(self.loss), "weights of groups": self.loss.weights, "model": self.model.settings()}
        adapters = getattr(self.model.backbone, "peft_config", {})
        about["adapters"] = {
            name: [getattr(config, key, None) for key in ("r", "lora_alpha", "lora_dropout")]
            for name, config in adapters.items()
        }
        # Those that are trained are in the checkpoint themselves.
        frozen = {name: each for name, each in self.model.named_parameters() if not each.requires_grad}
        about["frozen weights"] = identity.of_tensors("weights", frozen, {})
        return options | about | {"processes": processes.processes(), "steps": self.steps, "examples": digest.hexdigest()}

    def _names(self) -> list[str]:
        return [group["name"] for group in self.optimizer.param_groups]

    def _start_log(self, done: int) -> None:
        """What an interrupted run logged after its checkpoint is logged again."""
        if self.output is None or processes.rank() != 0:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        log = self.output / _LOG
        lines = log.read_bytes().split(b"\n") if done and log.exists() else []
        self.log = [line for line in map(_logged, lines) if line is not None and line["step"] <= done]
        log.write_text("".join(f"{json.dumps(line)}\n" for line in self.log), encoding="utf-8")
        if self.log:
            self.started -= self.log[-1]["seconds"]

    def _write(self, line: dict[str, Any]) -> None:
        line["seconds"] = round(time.monotonic() - self.started, 3)
        self.log.append(line)
        if self.output is not None and processes.rank() == 0:
            with open(self.output / _LOG, "a", encoding="utf-8") as file:
                file.write(f"{json.dumps(line)}\n")


def _logged(line: bytes) -> dict[str, Any] | None:
    """A line of the log; ``None`` of one that is empty, or that was torn by what interrupted the run."""
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"step", "seconds"} <= found.keys() else None


def _optimizer(model: MetaEmbed, weights: dict[str, torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    meta = model.table.meta_tokens
    projection = None if model.projection is None else model.projection.weight
    rest = [each for each in weights.values() if each is not meta and each is not projection]
    decay = options.weight_decay
    groups: list[dict[str, Any]] = [
        {"name": "backbone", "params": rest, "lr": options.learning_rate, "weight_decay": decay},
        {"name": "meta_tokens", "params": [meta], "lr": options.meta_learning_rate, "weight_decay": 0.0},
        {"name": "projection", "params": [projection], "lr": options.projection_learning_rate, "weight_decay": decay},
    ]
    for group in groups:
        group["params"] = [each for each in group["params"] if each is not None and each.requires_grad]
    return torch.optim.AdamW([group for group in groups if group["params"]])


@contextmanager
def _own_seeds(model: MetaEmbed) -> Iterator[None]:
    """The caller's random numbers and the mode of the model are afterwards as they were."""
    training, device = model.training, model.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(training)
