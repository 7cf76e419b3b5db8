"""What runs inside the wall: an IPython shell and its channel. Nothing in here is trusted by the server."""
