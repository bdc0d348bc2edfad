"""What all pages and pictures share: colours, type, edges, and how objects are marked."""
