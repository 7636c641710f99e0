"""Train one learner. Launched as a process of its own, so that it can be one of several."""

import argparse
import json
import sys
from pathlib import Path

from cxrscale import tables
from cxrscale.devices import leased
from cxrscale.findings import TARGETS
from cxrscale.joblog import job


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the learner's folder")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--code", required=True, help="digest of the code; a checkpoint of other code is set aside")
    parser.add_argument("--model", required=True, help="timm name")
    parser.add_argument("--resolution-px", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="TrainingSettings as JSON")
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True, help="of the store at this resolution")
    parser.add_argument("--native-at-least-px", type=int, default=0, help="leave out images with smaller native files")
    parser.add_argument("--weights", type=Path, help="initial weights; random without")
    parser.add_argument("--accelerator", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--micro-batch-images", type=int, default=8)
    parser.add_argument("--stage-dir", help="local folder that the store is copied to first; none: read it in place")
    parser.add_argument("--checkpoint-s", type=int, default=600, help="seconds between checkpoints")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    with job(given.log, __file__) as log, leased(given.accelerator):
        import torch  # after the lease, which says which GPU this process may see

        from cxrscale.provenance import digest, file_digest
        from cxrscale.store.reader import StoreReader
        from cxrscale.store.staging import staged
        from cxrscale.training import TrainingSettings, run_as_job, train_learner

        torch.set_num_threads(given.threads)
        data = [file_digest(path) for path in (given.targets, given.manifest, given.weights) if path]
        log.info("digest of code %s, of data %s", given.code, digest(data))
        stage_dir = None if given.stage_dir == "none" else given.stage_dir
        run_as_job(
            lambda: train_learner(
                folder=given.folder,
                model_name=given.model,
                resolution_px=given.resolution_px,
                seed=given.seed,
                settings=tables.settings_from(TrainingSettings, given.settings),
                targets=tables.read(TARGETS, given.targets),
                store=StoreReader(staged(given.manifest.parent, stage_dir), given.native_at_least_px),
                weights=given.weights,
                inputs_digest=digest([given.code, data, given.native_at_least_px]),
                device=torch.device(given.accelerator),
                micro_batch_images=given.micro_batch_images,
                workers=given.workers,
                checkpoint_s=given.checkpoint_s,
                progress=sys.stderr.isatty(),
            )
        )


if __name__ == "__main__":
    main()
