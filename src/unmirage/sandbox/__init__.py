"""The embedded world: drawn scenes, invented facts, a small real LLaVA and the shipped base weights."""
