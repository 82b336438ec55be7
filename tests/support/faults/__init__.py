"""The fault matrix: cases, where they play, and the page that shows them."""
