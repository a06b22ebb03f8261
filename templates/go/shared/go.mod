module {{name}}

go 1.24

require meshwright v0.0.0

replace meshwright => ./meshwright
