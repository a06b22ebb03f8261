module meshwright

go 1.24
