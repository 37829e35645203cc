"""The Linux sandbox: bwrap, its system call filter and the processes that watch it."""
