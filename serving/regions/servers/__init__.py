"""Model servers of a region: how they are started, watched, kept in reserve and ended."""
