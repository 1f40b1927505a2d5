"""One file a verb, or a small group of verbs that belong together."""
