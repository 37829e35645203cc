"""YAML read strictly: no duplicate keys, no guessed types, each value with its place."""
