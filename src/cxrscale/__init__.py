"""cxrscale: which image resolution does each chest X-ray finding need, at what cost, and what does combining gain?

Nothing is imported here, so that a stage depends only on the modules that it names (see `cxrscale.common.provenance`).
"""
