module read-replica-router

go 1.24

require meshwright v0.0.0

replace meshwright => ../../templates/go/shared/meshwright
