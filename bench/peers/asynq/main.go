// Asynq: no-op tasks from one queue. With results each task writes "null" and is kept for a day; without, it is gone when done.
package main

import (
	"context"
	"time"

	"bench/peer"
	"github.com/hibiken/asynq"
)

func main() {
	peer.Run(func(job *peer.Job) (func() error, func() error) {
		redis := asynq.RedisClientOpt{Addr: job.Addr}
		client := asynq.NewClient(redis)
		var options []asynq.Option
		if job.Results {
			options = append(options, asynq.Retention(24*time.Hour))
		}
		fill := func() error {
			_, err := client.Enqueue(asynq.NewTask("noop", nil), options...)
			return err
		}
		start := func() error {
			server := asynq.NewServer(redis, asynq.Config{Concurrency: job.Concurrency, LogLevel: asynq.ErrorLevel})
			return server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) (err error) {
				if job.Results {
					_, err = task.ResultWriter().Write([]byte("null"))
				}
				job.Done()
				return err
			}))
		}
		return fill, start
	})
}
