"""The hand that speaks to the fence, the process that is the parent of Postgres (rust/fence)."""
