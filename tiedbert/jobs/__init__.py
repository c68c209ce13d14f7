"""What the console command and the scripts do, one module a job.

Nothing of this is public but the command lines: `tiedbert --help`.
"""
