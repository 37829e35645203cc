"""One resource of the operating system each: permissions, Unix sockets, peers, memory, sd_notify."""
