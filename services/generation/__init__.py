"""Generation: samples rollouts from the newest policy and stamps every token with the version that made it."""
