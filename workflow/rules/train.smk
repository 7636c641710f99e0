# Initial weights, training, predictions.

# Processes that torchrun starts on a node share its threads; a task of srun, one a GPU, has its own.
threads_a_gpu = 1 if study.accelerator == "cpu" else study.training.workers + 1
start_together = {"threads": threads_a_gpu * study.training.gpus, "resources": {"launcher": ""}}
if study.training.nodes > 1:
    on_each = study.training.gpus
    several = {
        # A step of srun inherits neither the CPUs of a task nor how many tasks a node has.
        "launcher": f"srun -n {study.training.nodes * on_each} --ntasks-per-node={on_each} -c {threads_a_gpu}",
        "mpi": "srun",
        "nodes": study.training.nodes,
        # The executor refuses one task per node, and asks for so many `tasks` a GPU unless tasks_per_gpu is 0.
        **({"tasks_per_node": on_each} if on_each > 1 else {"tasks": study.training.nodes, "tasks_per_gpu": 0}),
        # As many GPUs on each node: of four in all SLURM may give three on one.
        **({"gres": f"gpu:{on_each}"} if gpu else {}),
    }
    start_together = {"threads": threads_a_gpu, "resources": several}
# What uses a learner is told of it by its record, never by the config.
of_learner = {"weights": f"{layout.learner()}/weights.safetensors", "learner": f"{layout.learner()}/learner.json"}
# The model whose initial weights a file below WEIGHTS_FOLDER is.
initial_weights = {Path(layout.weights(m.name)).name: m for m in study.models if m.weights}


localrules:
    fetch_weights,


rule fetch_weights:
    input:
        lambda w: getattr(initial_weights[w.file].weights, "file", []),
    output:
        f"{WEIGHTS_FOLDER}/{{file}}",
    log:
        f"{WEIGHTS_FOLDER}/logs/{{file}}.log",
    wildcard_constraints:
        file=r"[A-Za-z0-9_.-]+\.safetensors",
    conda:
        "../../envs/cxrscale.yaml"
    params:
        code=code("fetch_weights.py"),
        model=lambda w: initial_weights[w.file].name,
        timm_tag=lambda w: getattr(initial_weights[w.file].weights, "timm_tag", None),
        sha256=lambda w: initial_weights[w.file].weights.sha256,
    message:
        "Fetching the initial weights {wildcards.file}"
    script:
        "../scripts/fetch_weights.py"


rule train:
    input:
        targets=layout.targets(),
        manifest=lambda w: layout.manifest(w.resolution),
        weights=lambda w: layout.weights(w.model) or [],
    output:
        weights=f"{layout.learner()}/weights.safetensors",
        learner=f"{layout.learner()}/learner.json",
        history=f"{layout.learner()}/history.csv",
        cost=f"{layout.learner()}/cost.json",
    log:
        f"{logs}/train/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    threads: start_together["threads"]
    resources:
        **start_together["resources"],
        # How it runs; unlike params, resources make nothing rerun.
        gpu=gpu * study.training.gpus * study.training.nodes,
        accelerator=study.accelerator,
        processes=study.training.gpus,
        training_nodes=study.training.nodes,
        workers=study.training.workers,
        micro_batch_images=study.training.micro_batch_images,
        recompute=str(study.training.recompute).lower(),
        compiled=str(study.training.compile).lower(),
        channels_last=str(study.training.channels_last).lower(),
        checkpoint_s=study.training.checkpoint_s,
        stage_dir=study.training.stage_dir or "none",
        mem_mb=8000,
        runtime=2880,
    params:
        code=code("train.py"),
        # What the weights depend on; the rest of config.training says how it runs.
        settings=lambda w: json.dumps(study.training.of_learner(w.model, w.resolution)),
        native_at_least_px=native_at_least_px,
        weights=lambda w, input: f"--weights {shlex.quote(input.weights)}" if input.weights else "",
    message:
        "Training {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    shell:
        # A process of its own, so that one process, several on a node or several nodes are the same script.
        '{resources.launcher} python "$CXRSCALE/workflow/scripts/train.py"'
        ' --folder "$(dirname {output.weights:q})" --log {log:q}'
        " --code {params.code:q} --settings {params.settings:q}"
        " --model {wildcards.model:q} --resolution-px {wildcards.resolution} --seed {wildcards.seed}"
        " --targets {input.targets:q} --manifest {input.manifest:q} {params.weights}"
        " --native-at-least-px {params.native_at_least_px}"
        " --accelerator {resources.accelerator} --threads {threads} --workers {resources.workers}"
        " --processes {resources.processes} --nodes {resources.training_nodes} --micro-batch-images {resources.micro_batch_images}"
        " --recompute {resources.recompute} --compile {resources.compiled} --channels-last {resources.channels_last}"
        " --checkpoint-s {resources.checkpoint_s}"
        " --stage-dir {resources.stage_dir:q}"


rule predict:
    input:
        **of_learner,
        targets=layout.targets(),
        manifest=lambda w: layout.manifest(w.resolution),
    output:
        f"{layout.learner()}/predictions.parquet",
    log:
        f"{logs}/predict/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    threads: threads_a_gpu
    resources:
        gpu=gpu,
        mem_mb=8000,
        runtime=240,
    params:
        code=code("predict.py"),
    message:
        "Predicting with {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/predict.py"
