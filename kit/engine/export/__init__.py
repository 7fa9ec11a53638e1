"""A plan in the format of another engine: Snakemake.

An exported plan is run by ``kit step`` and ended by ``kit collect``; the other engine only decides
when and where. Keys, parameters and inputs stay those of the plan file that is written beside.
"""
