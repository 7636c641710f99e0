# Initial weights of networks, and training.
import json
import shlex

# How the processes of one training start: on one node by torchrun, on several by srun.
training_resources = study.training.resources_by_learner(study.accelerator)
# The model whose initial weights a file below results/weights is.
initial_weights = {Path(layout.weights(m.name)).name: m for m in study.models if m.weights}


localrules:
    fetch_weights,
    fetch_all_weights,
    learners,


# All trainings.
rule learners:
    input:
        layout.of_learners("weights.safetensors"),


# Initial weights of all models; needs a network where a model names a timm tag.
rule fetch_all_weights:
    input:
        expand(f"{layout.weights_folder}/{{file}}", file=initial_weights),


rule fetch_weights:
    input:
        lambda w: getattr(initial_weights[w.file].weights, "file", []),
    output:
        f"{layout.weights_folder}/{{file}}",
    log:
        f"{layout.weights_folder}/logs/{{file}}.log",
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
        targets=layout.table("targets"),
        index=lambda w: layout.index(w.resolution),
        weights=lambda w: layout.weights(w.model) or [],
    output:
        **layout.trained,
        history=layout.table("history"),
        cost=layout.learner("cost.json"),
    log:
        layout.log("train"),
    # The longest first: else the last GPUs wait for one that began late.
    priority: lambda w: schedule.priority_of(study, w.model, w.resolution)
    conda:
        "../../envs/cxrscale.yaml"
    threads: lambda w: study.training.threads_of(study.accelerator, w.model, w.resolution)
    resources:
        # How it runs; unlike params, resources make nothing rerun.
        **training_resources,
        accelerator=study.accelerator,
        run=json.dumps(study.training.run(), separators=(",", ":")),  # a listing separates resources by ", "
        mem_mb=lambda w, attempt: attempt * study.training.memory_mb(study.accelerator, w.model, w.resolution),
        runtime=2880,
    params:
        code=code("train.py"),
        # What the weights depend on; the rest of config.training says how it runs.
        settings=lambda w: json.dumps(study.training.of_learner(w.model, w.resolution)),
        micro_batch_images=lambda w: study.training.micro_batch_of(w.model, w.resolution),
        geometry=study.store.geometry,
        native_at_least_px=study.native_at_least_px,
        weights=lambda w, input: f"--weights {shlex.quote(input.weights)}" if input.weights else "",
    message:
        "Training {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    shell:
        # A process of its own, so that one process, several on a node or several nodes are the same script.
        '{resources.launcher} python "$CXRSCALE/workflow/scripts/train.py"'
        ' --folder "$(dirname {output.weights:q})" --log {log:q}'
        " --code {params.code:q} --settings {params.settings:q}"
        " --model {wildcards.model:q} --resolution-px {wildcards.resolution} --seed {wildcards.seed}"
        " --targets {input.targets:q} --index {input.index:q} {params.weights}"
        " --geometry {params.geometry} --native-at-least-px {params.native_at_least_px}"
        " --accelerator {resources.accelerator} --threads {threads}"
        " --processes {resources.processes} --nodes {resources.training_nodes} --run {resources.run:q}"
