"""The console: a web page that shows a cell at work, and the read-only API behind it. Owns nothing, decides nothing."""
