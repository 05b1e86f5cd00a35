"""The first and the last stage: what a release is about to do, and what came of it."""
