"""The hand that holds the store: one small, linearizable place that every node agrees on."""
