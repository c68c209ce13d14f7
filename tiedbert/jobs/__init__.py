"""The jobs of the console command and of the scripts, one module a job.

Public are the command lines alone: see `tiedbert --help`.
"""
