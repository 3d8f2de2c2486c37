"""What etcd keeps in its bbolt file: revisions, keys and values, leases, meta; and the HashKV over it."""
