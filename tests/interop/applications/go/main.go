// A Go application: database/sql over lib/pq, shown by client_golang's own collector.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	_ "github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const size = 5

func main() {
	db, err := sql.Open("postgres", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(size)
	prometheus.MustRegister(collectors.NewDBStatsCollector(db, "payment"))

	var mutex sync.Mutex
	var borrowed []*sql.Conn
	borrow := func() {
		conn, err := db.Conn(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		mutex.Lock()
		borrowed = append(borrowed, conn)
		mutex.Unlock()
	}
	http.HandleFunc("/borrow", func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < size; i++ {
			borrow()
		}
		go borrow()
		go borrow()
		for db.Stats().WaitCount < 2 {
			time.Sleep(time.Millisecond)
		}
	})
	http.HandleFunc("/release", func(w http.ResponseWriter, r *http.Request) {
		for released := 0; released < size+2; {
			mutex.Lock()
			for _, conn := range borrowed {
				if err := conn.Close(); err != nil {
					log.Fatal(err)
				}
				released++
			}
			borrowed = nil
			mutex.Unlock()
			time.Sleep(time.Millisecond)
		}
	})
	http.Handle("/metrics", promhttp.Handler())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
