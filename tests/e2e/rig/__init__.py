"""The small internet that the end-to-end tests run in, and everything that lives there."""
