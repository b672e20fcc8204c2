package nouns

import (
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	time.Sleep(time.Second)
}

func TestStory(t *testing.T) {
	t.Log(1)
	t.Log(2)
	t.Log(3)
	t.Log(4)
	t.Log(5)
	t.Log(6)
	t.Log(7)
}
