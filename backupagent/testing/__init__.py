"""What tests and benchmarks share: fakes, builders, and starting and stopping real servers."""
