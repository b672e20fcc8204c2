package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"sync"
)

// cachedKeys is how many signing keys are remembered: one for each access key that is in use, a day.
const cachedKeys = 8192

// keyCache remembers signing keys, which stay the same for a day. It keeps two generations: one that
// is full becomes the older one, and what was in neither lately is forgotten, so also the keys of days past.
type keyCache struct {
	mu         sync.Mutex // guards what follows
	young, old map[keyName][]byte
}

// keyName has the secret in it, so that a changed secret is another key.
type keyName struct{ accessKey, secret, day, region, service string }

func newKeyCache() *keyCache { return &keyCache{young: map[keyName][]byte{}} }

func (k *keyCache) of(c *Claim, secret string) []byte {
	name := keyName{c.AccessKey, secret, c.day, c.Region, c.Service}
	k.mu.Lock()
	key := k.young[name]
	if key == nil {
		if key = k.old[name]; key != nil {
			k.put(name, key)
		}
	}
	k.mu.Unlock()
	if key != nil {
		return key
	}
	key = derive("AWS4"+secret, c.day, c.Region, c.Service)
	k.mu.Lock()
	k.put(name, key)
	k.mu.Unlock()
	return key
}

// put needs the lock.
func (k *keyCache) put(name keyName, key []byte) {
	if len(k.young) >= cachedKeys/2 {
		k.old, k.young = k.young, map[keyName][]byte{}
	}
	k.young[name] = key
}

// derive makes the signing key of a scope.
func derive(seed, day, region, service string) []byte {
	key := []byte(seed)
	for _, part := range []string{day, region, service, terminator} {
		key = mac(key, part)
	}
	return key
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text)) // a hash does not fail
	return h.Sum(nil)
}
