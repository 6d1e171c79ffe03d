"""The effect of each phrase of a prompt on the picture: where it acts, and how much."""
