package nouns

import (
	"fmt"
	"log"
)

type Bare struct{ a, b, c int }

const Bare2 = 1

func Loud(a, b, c int) {
	fmt.Println(a)
	log.Fatalf("%d", b)
	panic("lost")
}

// Wide asks for too much.
type Wide interface {
	A()
	B()
	C()
}
