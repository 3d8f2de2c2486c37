module backupagent/tests/servers/gointerop

go 1.24
