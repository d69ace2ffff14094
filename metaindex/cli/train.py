"""``metaindex train``: Meta Tokens and an adapter on a backbone, from a file of queries and their documents."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from metaindex.cli import arguments
from metaindex.cli.output import json_text
from metaindex.errors import MissingDependencyError
from metaindex.training.examples import read_examples
from metaindex.training.options import SCHEDULES, TrainingOptions

_DEFAULT = TrainingOptions()
_TOLD = [field.name for field in fields(TrainingOptions) if field.name != "max_gradient_norm"]


def add_parser(commands: Any) -> None:
    about = "train an encoder whose every budget works"
    train = commands.add_parser("train", help=about, description=f"{about[0].upper()}{about[1:]}.")
    train.add_argument("data", help='JSON lines such as {"query": "...", "positive": "...", "negatives": ["..."]}')
    train.add_argument("--backbone", required=True, metavar="PATH", help="a transformers model and its tokenizer or processor")
    train.add_argument("--output", required=True, metavar="DIR", help="a new folder: model, log.jsonl, checkpoints")
    train.add_argument("--evaluate", metavar="FILE", help="JSON lines on which every budget is measured")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in DIR, if there is one")
    train.add_argument("--json", action="store_true", help="print a JSON line instead of the summary")
    _add_model(train.add_argument_group("model"))
    _add_loss(train.add_argument_group("loss"))
    _add_run(train.add_argument_group("run"))
    train.set_defaults(run=run, refuse=train.error)


def _add_model(group: Any) -> None:
    group.add_argument("--query-tokens", type=arguments.count, default=16, metavar="R", help="Meta Tokens of a query (16)")
    group.add_argument("--doc-tokens", type=arguments.count, default=64, metavar="T", help="Meta Tokens of a document (64)")
    group.add_argument("--dim", type=arguments.count, metavar="D", help="of a projection behind the backbone (none)")
    group.add_argument("--query-prompt", default="", metavar="TEXT", help="in front of every query")
    group.add_argument("--document-prompt", default="", metavar="TEXT", help="in front of every document")
    group.add_argument("--max-length", type=arguments.count, metavar="N", help="tokens of a text; longer ones are cut")
    group.add_argument(
        "--lora-rank",
        type=arguments.from_zero,
        default=32,
        metavar="N",
        help="of the adapter (32); 0 trains the whole backbone",
    )
    group.add_argument("--lora-alpha", type=arguments.count, default=32, metavar="A", help="weight of the adapter (32)")
    group.add_argument("--lora-dropout", type=arguments.fraction, default=0.0, metavar="P", help="before the adapter (0)")
    group.add_argument("--merge", action="store_true", help="save the sum of backbone and adapter, not the adapter alone")
    group.add_argument("--device", help='such as "cpu" or "cuda:1" (a GPU if there is one)')
    group.add_argument(
        "--attention", metavar="NAME", help="transformers' attn_implementation (its default; eager for --bf16 on a CPU)"
    )


def _add_loss(group: Any) -> None:
    group.add_argument("--groups", type=arguments.budgets, help='budgets trained (the paper\'s): "1,1 2,4 4,8 8,16 16,64"')
    group.add_argument(
        "--temperature",
        type=arguments.positive,
        nargs="+",
        default=[0.03],
        metavar="NUMBER",
        help="what scores are divided by, one for all groups or one for each (0.03)",
    )
    group.add_argument("--reduction", choices=("sum", "mean"), default="sum", help="over groups (sum)")


def _add_run(group: Any) -> None:
    def add(name: str, type: Any, metavar: str, about: str) -> None:
        default = getattr(_DEFAULT, name.strip("-").replace("-", "_"))
        shown = about if default is None else f"{about} ({default:g})"
        group.add_argument(name, type=type, default=default, metavar=metavar, help=shown)

    add("--epochs", arguments.count, "N", "how often each line is seen")
    add("--steps", arguments.count, "N", "batches, instead of epochs")
    add("--batch-size", arguments.count, "B", "queries in a batch, of one process")
    add("--chunk-size", arguments.count, "N", "inputs in one forward pass (a whole batch)")
    group.add_argument(
        "--cache-gradients", action="store_true", help="memory of one chunk, at the price of a second forward pass"
    )
    add("--learning-rate", arguments.positive, "L", "of adapter or backbone")
    add("--meta-learning-rate", arguments.positive, "L", "of Meta Tokens")
    add("--projection-learning-rate", arguments.positive, "L", "of the projection")
    add("--weight-decay", arguments.fraction, "W", "of AdamW")
    add("--warmup", arguments.fraction, "SHARE", "of the steps, in which learning rates rise")
    group.add_argument("--schedule", choices=SCHEDULES, default=_DEFAULT.schedule, help=f"({_DEFAULT.schedule})")
    group.add_argument("--no-dropout", dest="dropout", action="store_false", help="drop nothing, which is faster")
    group.add_argument("--bf16", action="store_true", help="bfloat16 by autocast")
    group.add_argument("--by-length", action="store_true", help="texts of like length share a batch, which is faster")
    add("--neighbours", arguments.count, "N", "lines of the file that follow each other share a batch")
    add("--coverage", arguments.positive, "C", "weight of a loss that keeps vectors from becoming alike; needs an adapter")
    add("--log-every", arguments.count, "N", "steps between two lines of the log")
    add("--evaluate-every", arguments.count, "N", "steps between two evaluations (at the end)")
    add("--save-every", arguments.count, "N", "steps between two checkpoints (none)")
    add("--seed", arguments.from_zero, "S", "of all that is random")


def run(options: argparse.Namespace) -> int:
    _refuse_what_does_not_fit(options)
    try:
        from accelerate import PartialState
    except ModuleNotFoundError:
        raise MissingDependencyError("training needs the package accelerate: pip install 'metaindex[train]'") from None
    from metaindex.encoders.loading import no_loading_bar
    from metaindex.training import MMRLoss, groups_of, train

    _check_device(options)
    groups = groups_of(options.query_tokens, options.doc_tokens) if options.groups is None else options.groups
    if len(options.temperature) not in (1, len(groups)):
        options.refuse(
            f"--temperature: expected one number or {len(groups)}, one for each group, got {len(options.temperature)}"
        )
    output = Path(options.output)
    _check_output(output, options.resume)
    examples = read_examples(options.data)
    evaluation = [] if options.evaluate is None else read_examples(options.evaluate)
    # What torchrun started finds its peers and its GPU here.
    state = PartialState(cpu=options.device == "cpu")
    model = _model(options, state.device if options.device is None else options.device)
    temperature = options.temperature[0] if len(options.temperature) == 1 else options.temperature
    log = train(
        model,
        examples,
        TrainingOptions(**{name: getattr(options, name) for name in _TOLD}),
        loss=MMRLoss(groups, temperature=temperature, reduction=options.reduction),
        evaluation=evaluation,
        output=output,
        resume=options.resume,
        progress=True,
    )
    if state.is_main_process:
        with no_loading_bar():
            model.save(output / "model", merge=options.merge)
        _print(log, output / "model", options.json)
    state.destroy_process_group()
    return 0


def _model(options: argparse.Namespace, device: Any) -> Any:
    import torch
    import transformers

    from metaindex.encoders.loading import no_loading_bar
    from metaindex.encoders.metaembed import MetaEmbed
    from metaindex.training import with_lora

    name = str(Path(options.backbone).resolve()) if os.path.isdir(options.backbone) else options.backbone
    if name.startswith((".", os.sep)) and not os.path.exists(name):
        raise FileNotFoundError(f"{name}: there is no folder")  # transformers would call it a bad name on its hub
    attention = options.attention
    if attention is None and options.bf16 and torch.device(device).type == "cpu":
        attention = "eager"  # the other one's backward pass in bfloat16 is slow on CPUs
    processors: Any = transformers.AutoProcessor
    torch.manual_seed(options.seed)  # what the checkpoint lacks begins alike in every process
    with no_loading_bar():
        # What is neither trained nor saved is kept as it is computed with.
        dtype = torch.bfloat16 if options.bf16 and options.lora_rank and not options.merge else torch.float32
        backbone: Any = transformers.AutoModel.from_pretrained(name, dtype=dtype, attn_implementation=attention)
    torch.manual_seed(options.seed)  # and all else, whatever was lacking
    if options.lora_rank:
        backbone = with_lora(backbone, options.lora_rank, options.lora_alpha, options.lora_dropout)
    model = MetaEmbed(
        backbone,
        processors.from_pretrained(name),
        options.query_tokens,
        options.doc_tokens,
        options.dim,
        query_prompt=options.query_prompt,
        document_prompt=options.document_prompt,
        max_length=options.max_length,
    )
    return model.to(device)


def _refuse_what_does_not_fit(options: argparse.Namespace) -> None:
    """What would be known only after the training, or once there is a folder that a second try finds taken."""
    if options.merge and not options.lora_rank:
        options.refuse("--merge: there is no adapter to add to the backbone; leave out --merge or --lora-rank 0")
    if options.coverage and not options.lora_rank:
        options.refuse("--coverage: it needs an adapter; leave out --coverage or --lora-rank 0")
    if options.evaluate_every is not None and options.evaluate is None:
        options.refuse("--evaluate-every: there is nothing to evaluate on; give it with --evaluate")
    if options.groups == []:
        options.refuse("--groups: expected pairs r_q,r_c separated by spaces, such as 1,1 2,4, got none")
    for r_q, r_c in options.groups or ():
        if r_q > options.query_tokens or r_c > options.doc_tokens:
            most = f"{options.query_tokens},{options.doc_tokens}"
            options.refuse(f"--groups: expected at most --query-tokens,--doc-tokens, which is {most}, got {r_q},{r_c}")


def _check_device(options: argparse.Namespace) -> None:
    """Torch knows what it has only by trying; it tells so by errors of several kinds."""
    import torch

    if options.device is None:
        return
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError):
        options.refuse(f"--device: expected a device that torch finds here, such as cpu, got {options.device!r}")


def _check_output(output: Path, resume: bool) -> None:
    if (output / "model").exists():
        raise FileExistsError(f"{output}: a trained model stands there already; choose another --output or remove it")
    if not resume and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output}: something stands there already; choose another --output, or --resume to go on")


def _print(log: list[dict[str, Any]], saved: Path, as_json: bool) -> None:
    # A run that was done already has no line where its log was lost.
    last = next((line for line in reversed(log) if "loss" in line), None)
    found = next((line["evaluation"] for line in reversed(log) if "evaluation" in line), None)
    if as_json:
        summary: dict[str, Any] = {"model": os.fspath(saved)}
        if last is not None:
            summary |= {"step": last["step"], "loss": last["loss"], "seconds": log[-1]["seconds"]}
        print(json_text(summary | ({} if found is None else {"evaluation": found})))
        return
    if last is not None:
        print(f"{last['step']:,} steps in {log[-1]['seconds']:,.1f} s, loss {last['loss']:.4f} at the last")
    if found is not None:
        print("budget      nDCG@10    loss")
        for group, values in found.items():
            print(f"{group:<10} {values['ndcg@10']:8.4f} {values['loss']:7.4f}")
    print(f"saved to {saved}; MetaEmbed.load({str(saved)!r}) reads it")
