"""Messages API: what a request may ask for, and what restricts it; pure."""
