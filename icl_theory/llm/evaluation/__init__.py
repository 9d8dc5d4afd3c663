"""Evaluation of language models: replies to problems, their grading, and saved studies."""
