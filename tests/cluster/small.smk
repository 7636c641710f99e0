# Jobs that use GPUs, want too much memory and take too long: run with a study's own profile by test_cluster.py.


rule all:
    input:
        expand("gpu/{i}", i=range(6)),
        "hungry",
        "slow",
        "several",
        "two",


# One line: node, GPUs seen, start, end.
rule use_gpu:
    output:
        "gpu/{i}",
    resources:
        gpu=1,
        mem_mb=500,
        runtime=5,
    shell:
        "began=$(date +%s.%N); sleep 10;"
        " echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $began $(date +%s.%N) > {output}"


# The first attempt's memory does not suffice, the second's does.
rule take_memory:
    output:
        "hungry",
    resources:
        mem_mb=lambda wildcards, attempt: 600 * attempt,
        runtime=5,
    shell:
        "python -c 'import time; held = b\"x\" * 700_000_000; time.sleep(10)' && touch {output}"


# The first attempt has a minute, the second has three.
rule take_time:
    output:
        "slow",
    resources:
        mem_mb=500,
        runtime=lambda wildcards, attempt: 2 * attempt - 1,
    shell:
        "sleep 90; touch {output}"


# Starts as a training on several nodes with several GPUs does: a line of each process.
rule use_several:
    output:
        "several",
    threads: int(config["threads"])
    resources:
        **config["several"],
        mem_mb=500,
        runtime=5,
    shell:
        "{resources.launcher} sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES' > {output}"


# Starts as a training with two GPUs on one node does: one process, which sees both.
rule use_two:
    output:
        "two",
    threads: int(config["threads"])
    resources:
        **config["two"],
        mem_mb=500,
        runtime=5,
    shell:
        "{resources.launcher} sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES' >> {output}"
