"""Session descriptions: what a peer offers, and our answer."""
