"""Deliberately broken encoders, readers and views: each breaks one promise of docs/plugins.md."""
