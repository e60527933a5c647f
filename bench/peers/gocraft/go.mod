module bench/gocraft

go 1.24

require (
	bench/peer v0.0.0
	github.com/gocraft/work v0.5.1
	github.com/gomodule/redigo v1.9.3
)

require (
	github.com/robfig/cron v1.2.0 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
)

replace bench/peer => ../peer
