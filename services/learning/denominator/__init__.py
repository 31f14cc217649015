"""What the sum over tokens is divided by: `(batch) -> scale`, 1/Z of each token, broadcast to [N, T]."""
