"""Memory of a training: which errors say that a device has too little of it."""

import re

import torch

#: Changes of this module that change a learner's weights raise it; how memory is looked after changes none.
RESULT_VERSION = 1

#: What libraries say that lack memory without raising torch.OutOfMemoryError, and what torch says of tensors with more
#: elements than 32 bits count (pytorch/pytorch 80020, 113833, 152816): smaller parts help against both.
_TOO_LARGE = re.compile(
    r"out of memory|can't allocate memory"
    r"|CU(DNN|BLAS|SOLVER|FFT)_STATUS_\w*ALLOC\w*"
    r"|(FIND|GET) was unable to find an engine|Unable to find a valid cuDNN algorithm"
    r"|canUse32BitIndexMath|32-bit index|integer out of range|kernel launch blocks must be positive"
    r"|CUDA error: invalid configuration argument"
)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a computation was too large for its device, so that one in smaller parts may do."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _TOO_LARGE.search(str(error)) is not None
