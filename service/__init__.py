"""The service: HTTP, the queue, and the child processes that work. Knows no mathematics."""
