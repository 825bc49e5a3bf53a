"""Measure a bench, judge the measurement, keep the record.

::

    bench --Kind.measure on a Stand--> raw frames, in an HDF5 record
    raw frames --pure fit--> Finding: values, quantities with errors, merits, figures
    Finding --judged by its limits--> immutable YAML, named in current.yaml
                                 or a failure that is kept and never in force

One module a kind: a procedure that drives the bench through roles alone, and a fit
that does not know that there is one.
"""
