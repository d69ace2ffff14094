"""What ``metaindex bench`` runs: seeded vectors, interleaved timing, the machine's record and the latency-vs-budget sweep."""
