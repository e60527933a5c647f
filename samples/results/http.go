// Call a task and read its result over HTTP, with nothing but Go's own library:
//
//	go run http.go http://127.0.0.1:8280
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

type task struct {
	ID     string
	State  string
	Ready  bool
	Result json.RawMessage
	Error  struct{ Message string }
}

func read(reply *http.Response, err error) task {
	var t task
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Body.Close()
	if err = json.NewDecoder(reply.Body).Decode(&t); err != nil {
		log.Fatal(err)
	}
	return t
}

func main() {
	base := strings.TrimSuffix(os.Args[1], "/")
	call := strings.NewReader(`{"task": "tasks.add", "args": [2, 3]}`)
	t := read(http.Post(base+"/tasks", "application/json", call))
	for !t.Ready {
		t = read(http.Get(base + "/tasks/" + t.ID + "?wait=20"))
	}
	if t.State == "SUCCESS" {
		fmt.Println(string(t.Result))
	} else {
		fmt.Println(t.Error.Message)
	}
}
