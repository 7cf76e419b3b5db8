"""The Python SDK; its public names are those of `onehop` itself.

The logic is written once, without input and output: functions that ask for steps (`steps.py`) and are
carried by two thin clients on httpx2 (`carriers.py`). Nothing in here may import the server: an engine of
one's own is a process that `embed.py` starts.
"""
