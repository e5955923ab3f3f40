// Command mongo serves MongoDB's wire protocol from SQLite files, for clusters that cannot pull a MongoDB image.
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "address to serve")
	dir := flag.String("dir", "", "folder of the database files (must exist)")
	flag.Parse()
	if *dir == "" {
		log.Fatal("mongo: --dir is missing: name the folder of the database files")
	}

	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: *listen},
		Handler:   "sqlite",
		SQLiteURL: "file:" + *dir + "/",
	})
	if err != nil {
		log.Fatalf("mongo: cannot start: %v", err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := server.Run(ctx); err != nil {
		log.Fatalf("mongo: stopped: %v", err)
	}
}
