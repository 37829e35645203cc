"""What a run sees, decided from facts; pure."""
