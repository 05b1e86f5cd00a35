"""What an agent does in its own region: workers that carry out what `deciding/` decides, and what keeps them up."""
