"""How the store's statements are loaded, named and printed."""
