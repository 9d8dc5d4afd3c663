"""The documentation site: README, guides, tutorials, theory and reference, put together and built by `make docs`."""
