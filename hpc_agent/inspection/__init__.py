"""Inspection: what ``hpc-agent jobs``, ``why``, ``logs``, ``cancel`` and ``render`` show of tasks and jobs.

Nothing here changes a record, and nothing decides: ``daemon`` and ``tracking`` do, from the same records.
"""
