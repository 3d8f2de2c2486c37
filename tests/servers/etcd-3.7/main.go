// Command etcd-3.7 is a pinned etcd server for tests, benchmarks and the demo.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
