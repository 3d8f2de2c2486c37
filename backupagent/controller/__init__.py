"""The migration controller: it watches Shoots, looks at objects and buckets, and tells how a migration goes."""
