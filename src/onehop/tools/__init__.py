"""Tools: functions that code in a sandbox calls and that run outside it. Never in the gateway's own process.

Each source of tools has a worker process; `launcher` starts them, `workers` is the gateway's end of them,
`registry` decides who may call what.
"""
