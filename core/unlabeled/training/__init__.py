"""One readable loop on plain torch, and what it stands on."""
