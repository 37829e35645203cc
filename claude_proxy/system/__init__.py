"""One resource of the operating system each: permissions, sockets, peers, memory, sd_notify."""
