"""bbolt files: a reader that trusts no byte, and a writer that only appends.

``layout`` the format, ``reader`` and ``walk`` reading, ``writer`` and ``tree`` writing. Nothing here knows etcd.
"""
