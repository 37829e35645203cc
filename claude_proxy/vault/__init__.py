"""Secret values: their sources, their freshness, their pins."""
