"""Messages API restrictions: what a request to Anthropic's API may ask for; pure."""
