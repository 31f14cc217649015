"""Where prompts come from, and how they are parted into training and held-out sets."""
