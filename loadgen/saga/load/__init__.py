"""The load generator behind `saga bench`: recorded or synthetic agent sessions, replayed over HTTP and reported as task
times.
"""
