"""A parser a data set: each module reads one data set's own files into the common tables of `datasets.contracts`."""
