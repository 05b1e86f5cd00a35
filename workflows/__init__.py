"""The story of a release, stage by stage. No logic lives here."""
