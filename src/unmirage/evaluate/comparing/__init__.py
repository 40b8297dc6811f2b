"""Inside `unmirage.evaluate.compare`: which rows runs share, their figures side by side, and who flipped."""
