"""The field's nouns as pure values: revisions, snapshots, chains, events, manifests.

No I/O, no clock, no thread. Grammars and formats are described in ``docs/formats.md``.
"""
