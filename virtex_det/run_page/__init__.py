"""A run on one page: how it learned, what it reached, where it errs, and how to go on."""
