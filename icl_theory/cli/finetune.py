"""`icl-theory finetune`: fine-tune a language model, with or without upsampling, and test it before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from icl_theory.errors import InputError, Interrupted
from icl_theory.progress import ProgressReport
from icl_theory.upsampling import GROUPS
from icl_theory.upsampling.conversations import LEARN
from icl_theory.upsampling.row_fields import Fields

SHOWN = 2  # examples that a dry run shows
FILE: Any = click.Path(path_type=Path)
FIRST_OPTIONS = ("late", "remaining", "floor", "target", "factor", "max_factor", "group")  # of --upsample


@click.command("finetune")
@click.argument("model")
@click.argument("data")
@click.option("--out", type=FILE, help="folder for all that comes of it; the same command goes on in it")
@click.option("--eval", "evaluation", metavar="DATA", help="problems that are put to the model before and after")
@click.option("--by", help="field of the problems by which accuracies are split  [default: kind, where there is one]")
@click.option("--max-new", type=int, help="most tokens of a reply to a problem  [default: 256]")
@click.option("--eval-batch-size", type=int, help="problems that are put to the model at once  [default: 32]")
@click.option("--optimizer", type=click.Choice(("adamw", "muon")), default="adamw", show_default=True)
@click.option("--sharpness", type=click.Choice(("none", "sam", "fsam")), default="none", show_default=True)
@click.option("--rho", default=0.05, show_default=True, help="size of the perturbation of sam and fsam")
@click.option(
    "--preconditioner",
    type=click.Choice(("none", "current", "past")),
    default="none",
    show_default=True,
    help="scale the perturbation by the second moment of adamw, with this step's gradient or of past steps alone",
)
@click.option(
    "--lora-rank", default=0, show_default=True, help="train low-rank adapters (LoRA) of this rank; 0 for all weights"
)
@click.option("--lora-alpha", default=16.0, show_default=True, help="scale of the adapters, divided by the rank")
@click.option("--lora-dropout", default=0.0, show_default=True, help="share of the adapters' inputs that is dropped")
@click.option(
    "--lora-matrices",
    default="query,value",
    show_default=True,
    help="adapted matrices, of query, key, value, output, gate, up and down",
)
@click.option("--learning-rate", default=2e-5, show_default=True, help="peak of the learning rate")
@click.option("--warmup", default=0, show_default=True, help="steps in which the learning rate rises")
@click.option("--schedule", type=click.Choice(("cosine", "linear", "constant")), default="cosine", show_default=True)
@click.option(
    "--weight-decay", default=0.0, show_default=True, help="weight decay, to be multiplied by the learning rate"
)
@click.option("--clip", default=1.0, show_default=True, help="norm that gradients are cut to; 0 for no cut")
@click.option("--steps", type=int, help="steps of the run, instead of --epochs")
@click.option("--epochs", type=float, help="passes over the set that is trained on  [default: 3]")
@click.option(
    "--equal",
    type=click.Choice(("epochs", "steps")),
    default="epochs",
    show_default=True,
    help="with upsampling or weights, --epochs counts passes over that set, or gives the steps of a plain run",
)
@click.option("--batch-size", default=8, show_default=True, help="rows of a step")
@click.option("--accumulate", default=1, show_default=True, help="parts that a batch is taken in, for less memory")
@click.option("--length", default=512, show_default=True, help="tokens of a row; examples that are longer are left out")
@click.option("--packing", is_flag=True, help="several whole examples in a row, instead of one and padding")
@click.option("--chat/--no-chat", default=None, help="ask by the chat template  [default: where there is one]")
@click.option(
    "--learn",
    type=click.Choice(LEARN),
    default="last",
    show_default=True,
    help="turns of the model that are learned, in a conversation",
)
@click.option(
    "--prompt-field", help="field of DATA and --eval that is asked: a text or turns  [default: by the usual formats]"
)
@click.option("--completion-field", help="field that answers; without --prompt-field a text that is learned whole")
@click.option(
    "--answer-field", help="field of --eval that replies are judged by  [default: answer if there, else the completion]"
)
@click.option("--system-field", help="field of the system prompt  [default: system or system_prompt]")
@click.option(
    "--thinking", is_flag=True, help="let the model think before it answers, by templates with that switch (Qwen3)"
)
@click.option(
    "--id-field",
    help="field of DATA that names examples in records; row for the row from 0  [default: id where there is one]",
)
@click.option(
    "--weights",
    type=FILE,
    help="train by weights, copies or indices (tables) or weights (.npy), as icl-theory upsample writes them",
)
@click.option("--upsample", "upsampling", is_flag=True, help="record a first run, find who is late, begin anew")
@click.option(
    "--noise-scale",
    is_flag=True,
    help="with --upsample: measure the gradient noise of late and early, and predict what factors do",
)
@click.option("--recorded-steps", type=int, help="steps of the first run  [default: one epoch]")
@click.option(
    "--record-every",
    type=int,
    help="steps between records of losses  [default: an eighth of the first run; no records without --upsample]",
)
@click.option(
    "--late", help="who is late: quantile=Q, threshold=S, clusters or ratio-clusters  [default: quantile=0.5]"
)
@click.option("--remaining", type=float, help="learned when this share of the first loss is left  [default: 0.5]")
@click.option(
    "--floor", type=click.Choice(("zero", "last")), help="loss that stays whatever is learned  [default: zero]"
)
@click.option("--target", type=float, help="learning-time ratio that is wanted  [default: 1]")
@click.option("--factor", type=float, help="the factor itself, instead of the measured ratio over the target")
@click.option("--max-factor", type=float, help="most that the rule may give  [default: 5]")
@click.option("--group", type=click.Choice(GROUPS), help="who is upsampled: late, or a control  [default: late]")
@click.option(
    "--dtype",
    type=click.Choice(("bfloat16", "float32")),
    help="number type of activations  [default: float32 on CPU, else bfloat16]",
)
@click.option("--remat", is_flag=True, help="compute blocks twice, for less memory")
@click.option("--shards", default=1, show_default=True, help="devices that weights are cut over; rows go over all")
@click.option("--multi-host", is_flag=True, help="one process on each of several hosts, started by a cluster")
@click.option("--save-every", default=500, show_default=True, help="steps between checkpoints")
@click.option("--seed", default=0, show_default=True, help="seed of the order of examples, and of what is drawn")
@click.option("--dry-run", is_flag=True, help="say what would be done, and show examples; write nothing")
@click.option("--show", type=int, help="examples to show as the model reads them  [default: 2 in a dry run, else 0]")
@click.option("--quiet", is_flag=True, help="no progress bars")
def finetune_command(
    model: str,
    data: str,
    out: Path | None,
    evaluation: str | None,
    by: str | None,
    max_new: int | None,
    eval_batch_size: int | None,
    steps: int | None,
    epochs: float | None,
    equal: str,
    chat: bool | None,
    thinking: bool,
    id_field: str | None,
    weights: Path | None,
    upsampling: bool,
    noise_scale: bool,
    recorded_steps: int | None,
    record_every: int | None,
    dtype: str | None,
    remat: bool,
    shards: int,
    multi_host: bool,
    save_every: int,
    dry_run: bool,
    show: int | None,
    prompt_field: str | None,
    completion_field: str | None,
    answer_field: str | None,
    system_field: str | None,
    learn: str,
    quiet: bool,
    **settings: Any,
) -> None:
    """Fine-tune MODEL on DATA.

    MODEL is a repository of the hub or a folder with config.json, safetensors and tokenizer, of the families Llama,
    Mistral, Qwen2, Qwen3, Gemma 3, Phi-2 and Phi-3; or a GGUF file of one of these families, quantised or not. DATA is
    JSON lines, a JSON array, CSV, Parquet, a folder of Parquet files or a set of the hub, with prompt and completion
    in one of the usual forms; or a generator of problems. The loss is on the completions. A stopped run goes on when
    the same command is given again.

    With --upsample a first run at a constant rate records the loss of every example; those that are learned late are
    upsampled by the ratio of learning times, and training begins anew on that set.

    \b
    Examples:
      icl-theory finetune Qwen/Qwen3-0.6B train.jsonl --out plain --eval test.jsonl
      icl-theory finetune Qwen/Qwen3-0.6B train.jsonl --out upsampled --eval test.jsonl --upsample
      icl-theory finetune Qwen/Qwen3-0.6B hf://openai/gsm8k,name=main --out gsm8k
      icl-theory finetune model.gguf "reasoning-gym:chain_sum,size=1000" --out sums --optimizer muon --learning-rate
      1e-3
    """
    import jax

    try:
        from icl_theory.llm.job.folder import where_it_goes_on
        from icl_theory.llm.job.job import run_job
        from icl_theory.llm.job.settings import Job
        from icl_theory.llm.model.sharding import make_mesh
        from icl_theory.llm.training.config import FinetuneConfig
    except ImportError as error:
        raise InputError("finetune", str(error), "install what it needs: pip install 'icl-theory[llm]'") from None
    if steps is not None and epochs is not None:
        raise InputError("--epochs", epochs, "--steps says how long already; give one of them")
    chosen = {name: settings.pop(name) for name in FIRST_OPTIONS}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if chosen and not upsampling:
        name = next(iter(chosen)).replace("_", "-")
        raise InputError(f"--{name}", next(iter(chosen.values())), "it belongs to --upsample; give that too")
    if out is None and not dry_run:
        raise InputError("--out", "not given", "name a folder for what comes of it; only --dry-run does without")
    for name, value in {
        "--max-new": max_new,
        "--eval-batch-size": eval_batch_size,
        "--answer-field": answer_field,
    }.items():
        if value is not None and evaluation is None:
            raise InputError(name, value, "it belongs to --eval; give that too")
    if multi_host:
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            remedy = f"no cluster started this process ({str(error).splitlines()[0]}); leave it out on one host"
            raise InputError("--multi-host", "given", remedy) from None
    on_cpu = jax.default_backend() == "cpu"
    job = Job(
        model=model,
        data=data,
        training=FinetuneConfig(**settings),
        steps=steps,
        epochs=3.0 if epochs is None else epochs,
        equal=equal,
        evaluation=evaluation,
        by=by,
        max_new=256 if max_new is None else max_new,
        chat=chat,
        thinking=thinking,
        learn=learn,
        fields=Fields(prompt_field, completion_field, answer_field, system_field),
        bfloat16=not on_cpu if dtype is None else dtype == "bfloat16",
        id_field=id_field,
        weights=weights,
        upsampling=chosen if upsampling else None,
        recorded_steps=recorded_steps,
        noise_scale=noise_scale,
        record_every=record_every,
    )
    mesh = make_mesh(shards) if jax.device_count() > 1 or shards != 1 else None
    first = jax.process_index() == 0
    try:
        with ProgressReport(quiet=quiet or not first) as report:
            run_job(
                job,
                out or Path(),
                mesh=mesh,
                remat=remat,
                save_every=save_every,
                asked_together=32 if eval_batch_size is None else eval_batch_size,
                dry_run=dry_run,
                show=show if show is not None else SHOWN if dry_run else 0,
                report=report,
                say=click.echo if first else lambda _: None,
            )
    except KeyboardInterrupt:
        raise Interrupted(where_it_goes_on(out or Path())) from None
