"""Where programs are put together: the one place that names the real hands."""
