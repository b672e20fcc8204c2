package nouns

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(*testing.T) { pause() })
}

func pause() { time.Sleep(time.Hour) }
