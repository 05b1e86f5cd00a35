"""What happens next, purely: no clock, no socket, no database. `acting/` carries it out."""
