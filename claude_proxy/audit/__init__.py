"""The audit log: one writer, its queries, its views."""
