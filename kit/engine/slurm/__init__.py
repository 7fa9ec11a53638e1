"""Running steps as SLURM jobs.

submitit writes and submits the batch scripts and requeues what is preempted or runs out of time;
this package says what to submit, follows the jobs through files, and explains how they ended.
"""
