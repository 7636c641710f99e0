"""What faces the workflow: the configuration, where results lie, and why stages run. Imports no torch."""
