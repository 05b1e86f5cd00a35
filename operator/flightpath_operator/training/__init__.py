"""TrainingJobs: one group of workers, restarted as a whole, from a pure decision to a plan."""
