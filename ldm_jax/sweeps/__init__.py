"""Ablations: many cells of one question, computed once each and compared in pairs. See README.md."""
