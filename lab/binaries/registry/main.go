// A registry of images in memory, for one user with a password.
//
//	registry ADDRESS USER PASSWORD
package main

import (
	"crypto/subtle"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: registry ADDRESS USER PASSWORD")
	}
	address, user, password := os.Args[1], os.Args[2], os.Args[3]
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	equal := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		if !equal(u, user) || !equal(p, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"name and password, please"}]}`, http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, r)
	})))
}
