"""Git repositories of a sandbox, and what is brought over from them to the host's; obeys no run."""
