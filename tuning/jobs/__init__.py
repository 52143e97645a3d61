"""Searches on a cluster from elsewhere, through Ray Jobs: all they need is the dashboard's port.

`packing` makes the file that a job gets, `checking` what can be known before, `client` speaks to
the cluster, `submission` starts jobs, `following` shows what they print, `sending` and `fetching`
bring an experiment back.
"""
