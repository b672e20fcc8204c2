package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// operatorKeyBytes is the length of an operator's key.
	operatorKeyBytes = 32
	// keyIDBytes name the key that sealed something.
	keyIDBytes = 4
	// auditPurpose is that of signatures of audit records.
	auditPurpose = "audit"
	// certificatePurpose is that of certificates of listeners with their keys.
	certificatePurpose = "certificate"
)

// Keyring is the keys of the operator: the first seals, all open, so that a new one can be put before
// an old one. What each purpose uses is derived, so that nothing sealed for one opens for another.
type Keyring struct{ keys [][]byte }

// ParseKeyring reads one key a line, each 32 bytes in base64 or hexadecimal digits. Errors: Invalid.
func ParseKeyring(text string) (*Keyring, error) {
	k := &Keyring{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := hex.DecodeString(line)
		if err != nil {
			key, err = base64.StdEncoding.DecodeString(line)
		}
		if err != nil || len(key) != operatorKeyBytes {
			return nil, errs.New(errs.Invalid, "operator's key is not %d bytes in base64 or hexadecimal digits", operatorKeyBytes)
		}
		k.keys = append(k.keys, key)
	}
	if len(k.keys) == 0 {
		return nil, errs.New(errs.Invalid, "there is no operator's key")
	}
	return k, nil
}

// writeNew writes a file that does not exist yet and that only its owner can read.
func writeNew(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// derive makes the key of a purpose.
func derive(key []byte, purpose string) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, "amphora "+purpose, operatorKeyBytes)
	if err != nil {
		panic("BUG: a key of 32 bytes cannot be derived: " + err.Error())
	}
	return out
}

func keyName(key []byte) []byte {
	sum := sha256.Sum256(derive(key, "key id"))
	return sum[:keyIDBytes]
}

func aead(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("BUG: an AES key of 32 bytes is refused: " + err.Error())
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		panic("BUG: GCM is refused: " + err.Error())
	}
	return g
}

// seal encrypts text for a purpose. The context is not part of the result, and must be the same to
// open it. A fresh key encrypts the text, and the operator's encrypts that key.
func (k *Keyring) seal(purpose, context string, text []byte) []byte {
	fresh := make([]byte, operatorKeyBytes)
	_, _ = rand.Read(fresh)
	out := append([]byte{}, keyName(k.keys[0])...)
	out = box(out, derive(k.keys[0], purpose), context, fresh)
	return box(out, fresh, context, text)
}

// box appends nonce and cipher text.
func box(out, key []byte, context string, text []byte) []byte {
	g := aead(key)
	nonce := make([]byte, g.NonceSize())
	_, _ = rand.Read(nonce)
	out = append(out, nonce...)
	return g.Seal(out, nonce, text, []byte(context))
}

// open undoes seal. Errors: Invalid, for what was not sealed by one of the keys for this purpose and context.
func (k *Keyring) open(purpose, context string, sealed []byte) ([]byte, error) {
	const nonceBytes, tagBytes = 12, 16
	const wrapped = nonceBytes + operatorKeyBytes + tagBytes
	if len(sealed) < keyIDBytes+wrapped+nonceBytes+tagBytes {
		return nil, errs.New(errs.Invalid, "sealed text is too short")
	}
	for _, key := range k.keys {
		if !hmac.Equal(keyName(key), sealed[:keyIDBytes]) {
			continue
		}
		rest := sealed[keyIDBytes:]
		fresh, err := aead(derive(key, purpose)).Open(nil, rest[:nonceBytes], rest[nonceBytes:wrapped], []byte(context))
		if err != nil {
			return nil, errs.New(errs.Invalid, "sealed text was changed, or belongs elsewhere")
		}
		rest = rest[wrapped:]
		text, err := aead(fresh).Open(nil, rest[:nonceBytes], rest[nonceBytes:], []byte(context))
		if err != nil {
			return nil, errs.New(errs.Invalid, "sealed text was changed, or belongs elsewhere")
		}
		return text, nil
	}
	return nil, errs.New(errs.Invalid, "text was sealed with an operator's key that is not known here")
}

// mac authenticates text for a purpose with one of the keys.
func (k *Keyring) mac(i int, purpose, text string) []byte {
	h := hmac.New(sha256.New, derive(k.keys[i], purpose))
	_, _ = fmt.Fprint(h, text) // a hash does not fail
	return h.Sum(nil)
}
