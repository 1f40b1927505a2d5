"""The hand that touches PostgreSQL: its processes, its files, its settings, what it says."""
