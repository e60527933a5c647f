// Package peer is what the programs of bench/peers have in common: fill a queue, say so, wait for a word, work, count.
//
//	NAME PORT COUNT CONCURRENCY results|none
//
// Prints "filled" when COUNT tasks are in the queue, and begins to work when it reads a line, so that whoever started it can
// look at the server's CPU time in between. When the last handler has run it prints tasks a second, and its own CPU
// microseconds a task.
package peer

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// A Job says what is to be measured; Done is called by each task.
type Job struct {
	Addr               string
	Count, Concurrency int
	Results            bool
	left               atomic.Int64
	over               chan struct{}
}

// Done counts a task that has run.
func (job *Job) Done() {
	if job.left.Add(-1) == 0 {
		close(job.over)
	}
}

// Must ends the program when there is an error.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[0]+":", err)
		os.Exit(1)
	}
}

// Run reads the arguments, lets fill send one task Count times, and start begin to work without waiting for the end.
func Run(prepare func(*Job) (fill func() error, start func() error)) {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: NAME PORT COUNT CONCURRENCY results|none")
		os.Exit(2)
	}
	job := &Job{Addr: "127.0.0.1:" + os.Args[1], Results: os.Args[4] == "results", over: make(chan struct{})}
	var err error
	job.Count, err = strconv.Atoi(os.Args[2])
	Must(err)
	job.Concurrency, err = strconv.Atoi(os.Args[3])
	Must(err)
	job.left.Store(int64(job.Count))

	fill, start := prepare(job)
	for i := 0; i < job.Count; i++ {
		Must(fill())
	}
	fmt.Println("filled")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	Must(err)
	before, began := cpu(), time.Now()
	Must(start())
	<-job.over
	seconds := time.Since(began).Seconds()
	fmt.Printf("%.1f %.1f\n", float64(job.Count)/seconds, (cpu()-before)/float64(job.Count))
	os.Exit(0) // nothing is to be kept: no shutdown in good order
}

func cpu() float64 {
	var used syscall.Rusage
	Must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1000
}
