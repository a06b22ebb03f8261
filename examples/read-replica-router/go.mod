module read-replica-router

go 1.24
