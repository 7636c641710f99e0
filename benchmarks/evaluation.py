"""Time and memory of the patient bootstrap at full size: 14 findings x 8 learners x 50,000 images x 2,000 replicates.

Findings are as frequent and patients have as many images as in MIMIC-CXR-JPG (cxrscale.data.random_mimic); which
images show what is made up. Then, on a part, the ratio to the usual way: scikit-learn called once a replicate, with the
number of times that each image was drawn as its weight. Both ways' values are compared.
"""

import resource
import time

import numpy as np
from measure import Result, arguments, report
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrscale.data.random_mimic import SPLIT_COUNTS, TRAIN_LABELS
from cxrscale.evaluate.auroc import weighted_auroc, weighted_average_precision
from cxrscale.evaluate.bootstrap import patient_weights, replicate

LEARNERS, IMAGES, REPLICATES = 8, 50_000, 2000
STATISTICS = {
    "AUROC": (weighted_auroc, roc_auc_score),
    "average precision": (weighted_average_precision, average_precision_score),
}


def made_up(images: int, learners: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient (image,), target (finding, image) and float32 logits (finding, learner, image)."""
    rng = np.random.default_rng(0)
    patients, studies, train_images = SPLIT_COUNTS["train"]
    size = rng.geometric(patients / train_images, images)  # of a patient, until there are enough images
    patient = np.repeat(np.arange(images), size)[:images]
    prevalence = np.array([positive / studies for positive, *_ in TRAIN_LABELS.values()])
    target = (rng.random((len(prevalence), images)) < prevalence[:, None]).astype(np.float64)
    common = rng.normal(size=(len(prevalence), 1, images)) + 1.5 * target[:, None]
    return patient, target, (common + 0.5 * rng.normal(size=(len(prevalence), learners, images))).astype(np.float32)


def measure(images: int, learners: int, replicates: int, naive_replicates: int) -> list[Result]:
    patient, target, logits = made_up(images, learners)
    results = []
    for name, (statistic, reference) in STATISTICS.items():
        start, before = time.perf_counter(), time.process_time()
        found = [replicate(statistic, logits[k], target[k], patient, replicates, 0) for k in range(len(target))]
        seconds, busy = time.perf_counter() - start, time.process_time() - before
        limit = "<= 60" if name == "AUROC" and replicates * images >= REPLICATES * IMAGES else ""
        results.append(Result(f"{name}, {len(target)} x {learners} x {images} x {replicates}", seconds, "s", limit))
        results.append(Result(f"{name}: time of a CPU core", busy, "s"))
        # The usual way, on the first replicates of each finding's first learner.
        times = patient_weights(patient, min(replicates, 250), np.random.default_rng(0))[:naive_replicates]
        before = time.process_time()
        usual = np.array(
            [[reference(target[k], logits[k, 0], sample_weight=w) for w in times] for k in range(len(target))]
        )
        each = (time.process_time() - before) / usual.size
        ratio = each * len(target) * learners * replicates / busy
        results.append(Result(f"{name}: usual way / this, in time of a core", ratio, "ratio"))
        differ = max(np.abs(f[0, : len(times)] - u).max() for f, u in zip(found, usual, strict=True))
        results.append(Result(f"{name}: largest difference of a value", float(differ), "", "<= 1e-9"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return [*results, Result("peak memory, data included", memory, "MB", "<= 2000")]


def main() -> None:
    options = arguments(__doc__).parse_args()
    images, replicates = (IMAGES // 5, REPLICATES // 10) if options.quick else (IMAGES, REPLICATES)
    report(measure(images, LEARNERS, replicates, 2 if options.quick else 4), options.json)


if __name__ == "__main__":
    main()
