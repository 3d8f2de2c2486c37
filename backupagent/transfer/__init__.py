"""One parallel, multipart, resumable streaming engine for every store.

It moves bytes by key and knows nothing of snapshots. Peak memory is ``TransferSettings.buffers_size``.
"""
