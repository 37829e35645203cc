"""The plan of a sandbox: what a run sees, decided from facts about the host; pure."""
