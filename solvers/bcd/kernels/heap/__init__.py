"""A heap of scores that knows where each unknown is, on the host."""
