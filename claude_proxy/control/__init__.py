"""Control of running proxies: what their owner asks of them and decides while they run."""
