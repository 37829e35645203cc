"""Containers: runs whose wall is a container engine's."""
