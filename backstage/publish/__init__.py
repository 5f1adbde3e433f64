"""From the notebooks to what a visitor sees: README, docs/, web pages."""
