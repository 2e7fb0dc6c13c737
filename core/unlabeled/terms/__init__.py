"""Terms: what is compared, by which loss. One file a term: a pure loss and the heads it needs."""
