"""The owner's text into values: every mistake with its file, line and column."""
