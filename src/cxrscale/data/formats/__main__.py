"""Lists the formats: python -m cxrscale.data.formats"""

import importlib
from dataclasses import asdict

from cxrscale.data.formats import formats


def listing() -> str:
    """Each format with what it declares."""
    lines = []
    for name, format_ in formats().items():
        summary = (importlib.import_module(format_.module).__doc__ or "").split("\n\n")[0]
        lines += [
            f"{name}: {' '.join(summary.split())}",
            f"  options: {asdict(format_.options()) or 'none'}",
            f"  findings: {', '.join(format_.findings) if format_.findings else 'those of its files'}",
            f"  labels.source: {', '.join(format_.label_sources)}",
            f"  labels.test_source: {', '.join(format_.test_sources)}",
            f"  official split: {format_.official_split}",
            f"  groups: {', '.join(['view', *format_.groups])}",
            f"  boxes: {format_.boxes or 'none of its own'}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(listing())
