// gocraft/work: no-op jobs from one queue. It has no results; a job that runs is in a list of its pool until it is done.
package main

import (
	"github.com/gocraft/work"
	"github.com/gomodule/redigo/redis"

	"bench/peer"
)

func main() {
	peer.Run(func(job *peer.Job) (func() error, func() error) {
		pool := &redis.Pool{
			MaxActive: job.Concurrency + 5,
			MaxIdle:   job.Concurrency + 5,
			Wait:      true,
			Dial:      func() (redis.Conn, error) { return redis.Dial("tcp", job.Addr) },
		}
		client := work.NewEnqueuer("bench", pool)
		fill := func() error {
			_, err := client.Enqueue("noop", nil)
			return err
		}
		start := func() error {
			workers := work.NewWorkerPool(struct{}{}, uint(job.Concurrency), "bench", pool)
			workers.Job("noop", func(*work.Job) error {
				job.Done()
				return nil
			})
			workers.Start()
			return nil
		}
		return fill, start
	})
}
