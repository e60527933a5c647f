// Machinery: no-op tasks from one queue of Redis. Its broker pops a task when it begins, so what runs is lost with the process;
// with results its backend stores the states RECEIVED, STARTED and SUCCESS of each task.
package main

import (
	"io"
	stdlog "log"

	"bench/peer"
	"github.com/RichardKnop/machinery/v2"
	"github.com/RichardKnop/machinery/v2/backends/iface"
	"github.com/RichardKnop/machinery/v2/backends/null"
	redisbackend "github.com/RichardKnop/machinery/v2/backends/redis"
	redisbroker "github.com/RichardKnop/machinery/v2/brokers/redis"
	"github.com/RichardKnop/machinery/v2/config"
	"github.com/RichardKnop/machinery/v2/locks/eager"
	"github.com/RichardKnop/machinery/v2/log"
	"github.com/RichardKnop/machinery/v2/tasks"
)

func main() {
	silent := stdlog.New(io.Discard, "", 0)
	log.SetDebug(silent)
	log.SetInfo(silent)
	peer.Run(func(job *peer.Job) (func() error, func() error) {
		settings := &config.Config{DefaultQueue: "machinery_tasks", ResultsExpireIn: 86400, Redis: &config.RedisConfig{}}
		var results iface.Backend = null.New()
		if job.Results {
			results = redisbackend.NewGR(settings, []string{job.Addr}, 0)
		}
		server := machinery.NewServer(settings, redisbroker.NewGR(settings, []string{job.Addr}, 0), results, eager.New())
		peer.Must(server.RegisterTask("noop", func() error {
			job.Done()
			return nil
		}))
		fill := func() error {
			_, err := server.SendTask(&tasks.Signature{Name: "noop"})
			return err
		}
		start := func() error {
			server.NewWorker("bench", job.Concurrency).LaunchAsync(make(chan error, 1))
			return nil
		}
		return fill, start
	})
}
