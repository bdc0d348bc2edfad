"""What every page and picture of this package shares: colours, type, edges, and how objects are marked."""
