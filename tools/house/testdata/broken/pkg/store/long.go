package store

import (
	"net/http"
	"os"
)

func long(w http.ResponseWriter) {
	_ = os.Getenv("HOME")
	http.Error(w, "no", 500)
	_ = 1
	_ = 2
	_ = 3
}

// 16
// 17
// 18
// 19
// 20
// 21
// 22
// 23
// 24
// 25
// 26
// 27
// 28
// 29
// 30
// 31
// 32
// 33
// 34
// 35
// 36
// 37
// 38
// 39
// 40
// 41
