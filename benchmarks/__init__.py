"""What is measured, beside what a user would pick instead; not installed."""
