"""Shows what a comparison found: a table for the terminal, one HTML file with tables and charts. Measures nothing."""
