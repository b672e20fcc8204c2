package api

import "net/http"

func pass() {
	if p := recover(); p != nil {
		panic(p)
	}
}

func cut() { panic(http.ErrAbortHandler) }
